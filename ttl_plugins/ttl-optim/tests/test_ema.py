"""The behaviour of `ema`."""

import copy
import re
import warnings

import numpy
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from ttl_optim import Ema

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop
from ttl_core.testing import ComponentConformance

VALID = ComponentConformance.make_data(2)


def copied(model):
    """Return a copy of a model's state."""
    return copy.deepcopy(dict(model.state_dict()))


def same(one, other):
    """Return whether two states hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class ByHand(LoopComponent):
    """A component that averages as a hand-written loop does."""

    def __init__(self, decay):
        self.decay = decay

    def on_train_begin(self, loop):
        average = get_ema_multi_avg_fn(self.decay)
        self.averaged = AveragedModel(loop.model, multi_avg_fn=average, use_buffers=True)

    def on_optim_step(self, loop):
        self.averaged.update_parameters(loop.model)


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_averages_are_those_of_the_library_to_the_same_bits(make_loop, place):
    """At any place in the list, weights and buffers are averaged after the step, as by hand."""
    ema, by_hand = Ema(0.9), ByHand(0.9)
    loop = make_loop(by_hand)
    loop.components.insert(place, ema)
    loop.train(2)
    expected = by_hand.averaged.state_dict()
    expected["module.1.num_batches_tracked"] = loop.model[1].num_batches_tracked  # A2: no average
    assert same(expected, ema.averaged.state_dict())


@pytest.mark.parametrize("run", ["train", "validate", "test", "predict"])
def test_evaluates_with_the_averages(make_loop, recorder, run):
    """In every epoch but training ones the model holds the averages, buffers included."""
    loop = make_loop(Ema(0.5), valid_data=VALID)
    loop.train(1)
    expected = copied(loop.components["ema"].averaged.module)
    seen = recorder("on_batch_end", lambda loop: loop.is_training or copied(loop.model))
    loop.components.append(seen)
    {
        "train": lambda: loop.train(0) or loop.validate(),
        "validate": loop.validate,
        "test": lambda: loop.test(VALID),
        "predict": lambda: loop.predict(VALID),
    }[run]()
    assert [True, True] == [same(expected, state) for state in seen.seen]


def test_training_is_not_changed(make_loop):
    """Weights and buffers are the same as without it."""
    plain, averaged = make_loop(valid_data=VALID), make_loop(Ema(0.5), valid_data=VALID)
    plain.train(2)
    averaged.train(2)
    assert same(copied(plain.model), copied(averaged.model))


@pytest.mark.parametrize("point", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("end", ["stop", "fail", "interrupt", "disable"])
def test_weights_are_restored_however_the_epoch_ends(make_loop, point, end):
    """After any end of a validation epoch the model has its own weights, as the same objects."""
    loop = make_loop(Ema(0.5))
    loop.train(1)

    def act(loop):
        match end:
            case "stop":
                loop.stop()
            case "fail":
                raise OSError("disk")
            case "interrupt":
                raise KeyboardInterrupt
        loop.components.disable("ema")

    class End(LoopComponent):
        def __init__(self):
            setattr(self, point, act)

    parameters, expected = list(loop.model.parameters()), copied(loop.model)
    loop.components.append(End())
    loop.valid_data = VALID
    try:
        loop.validate()
    except (OSError, KeyboardInterrupt):
        assert end in ("fail", "interrupt")
    assert same(expected, copied(loop.model))
    assert all(a is b for a, b in zip(parameters, loop.model.parameters(), strict=True))


@pytest.mark.parametrize(
    "point", ["on_batch_begin", "on_loss_compute", "on_optim_step", "on_safe_point"]
)
def test_a_validation_in_mid_epoch_changes_nothing(make_loop, point):
    """validate() at any point, also between forward and backward pass, leaves training alone."""

    class Validate(LoopComponent):
        def __init__(self):
            def act(loop):
                if not (loop.is_validating or loop.is_testing):
                    loop.validate()

            setattr(self, point, act)

    plain = make_loop(Ema(0.5), valid_data=VALID)
    busy = make_loop(Ema(0.5), Validate(), valid_data=VALID)
    plain.train(2)
    busy.train(2)
    assert same(copied(plain.model), copied(busy.model))
    assert same(plain.components["ema"].state_dict(), busy.components["ema"].state_dict())


def test_weights_are_restored_where_the_model_was_moved_in_the_epoch(make_loop):
    """A component may replace the model's tensors in on_epoch_begin, as moving the model does."""

    class Move(LoopComponent):
        def on_epoch_begin(self, loop):
            loop.model.double()

    loop = make_loop(Ema(0.5))
    loop.train(1)
    expected = copied(copy.deepcopy(loop.model).double())
    loop.components.append(Move())
    loop.test([])
    assert same(expected, copied(loop.model))


def test_before_the_first_step_the_weights_are_tested(make_loop, recorder):
    """Before the first average, a test uses the weights."""
    loop = make_loop(Ema(0.5, start_step=4), data=ComponentConformance.make_data(4))
    loop.train(1)
    seen = recorder("on_batch_end", lambda loop: same(before, copied(loop.model)))
    loop.components.append(seen)
    before = copied(loop.model)
    loop.test(VALID)
    assert ([True, True], None) == (seen.seen, loop.components["ema"].averaged)


def test_averaging_begins_with_start_step(make_loop):
    """Steps are counted from 0, and start_step is the first that counts."""
    loop = make_loop(Ema(start_step=4))
    loop.train(1)
    assert 2 == int(loop.components["ema"].averaged.n_averaged)


def test_enabled_in_mid_run_it_begins_with_the_current_weights(make_loop):
    """It averages from the first step after it was enabled."""

    class Enable(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num == 4:
                loop.components.enable("ema")

    loop = make_loop(Ema(), Enable())
    loop.components.disable("ema")
    loop.train(1)
    assert 2 == int(loop.components["ema"].averaged.n_averaged)


def test_resumes_from_its_state(make_loop, through_file):
    """A loop with the model and the state of another one comes to the same averages."""
    uninterrupted = make_loop(Ema(0.9))
    uninterrupted.train(1)
    state = through_file(uninterrupted.components["ema"].state_dict())
    resumed = make_loop(Ema(0.9))
    resumed.model.load_state_dict(copied(uninterrupted.model))
    resumed.components["ema"].load_state_dict(state)
    uninterrupted.train(1)
    resumed.train(1)
    assert same(
        uninterrupted.components["ema"].state_dict(), resumed.components["ema"].state_dict()
    )


def test_tests_with_a_state_that_was_loaded(make_loop, recorder):
    """A test() without any training uses the averages that were loaded."""
    trained = make_loop(Ema(0.9))
    trained.train(1)
    expected = copied(trained.components["ema"].averaged.module)
    seen = recorder("on_batch_end", lambda loop: same(expected, copied(loop.model)))
    fresh = make_loop(Ema(0.9), seen)
    fresh.components["ema"].load_state_dict(trained.components["ema"].state_dict())
    fresh.test(VALID)
    assert [True, True] == seen.seen


def test_a_state_that_was_not_used_yet_is_kept(make_loop):
    """Saving again before the first epoch saves what was loaded."""
    trained, fresh = make_loop(Ema()), Ema()
    trained.train(1)
    state = trained.components["ema"].state_dict()
    fresh.load_state_dict(state)
    assert same(state, fresh.state_dict())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"decay": -0.1}, "decay is -0.1, but has to be a number from 0 to 1"),
        ({"decay": 1.1}, "decay is 1.1, but has to be a number from 0 to 1"),
        ({"decay": "0.9"}, "decay is '0.9', but has to be a number"),
        ({"start_step": -1}, "start_step is -1, but has to be a whole number from 0"),
        ({"start_step": True}, "start_step is True"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """Arguments that cannot work are refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        Ema(**config)


def test_takes_numbers_of_numpy():
    """NumPy's numbers are taken as Python's."""
    ema = Ema(numpy.float64(0.5), start_step=numpy.int64(4))
    assert (0.5, 4) == (ema.decay, ema.start_step)


# A2: averages of what is no average


class Buffers(torch.nn.Module):
    """A model with a weight of 1.0 and the given buffers."""

    def __init__(self, **buffers):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, batch):
        return batch * self.weight


class Change(LoopComponent):
    """A component that steps, where each step is one function of the model and the batch number."""

    def __init__(self, function):
        self.function = function

    @torch.no_grad()
    def on_optim_step(self, loop):
        self.function(loop.model, loop.batch_num)


def averaged_over(model, function, n_steps=3, components=()):
    """Return the averages (decay 0.5) of a model that a function changes in each step."""
    loop = TrainTestLoop(model, [Change(function), *components, Ema(0.5)], range(n_steps))
    loop.train(1)
    return loop.components["ema"].averaged.module


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_copies_buffers_of_whole_numbers(dtype):
    """A2: a counter, a random state or a mask in the averages is that of the model."""

    def act(model, i):
        model.numbers.copy_(torch.tensor([0, 1, 1]) * (i < 2) * (7 if dtype != torch.bool else 1))

    model = Buffers(numbers=torch.zeros(3, dtype=dtype))
    averages = averaged_over(model, act)
    assert (dtype, [0, 0, 0]) == (averages.numbers.dtype, averages.numbers.tolist())


@pytest.mark.parametrize(
    "spectral_norm",
    [torch.nn.utils.parametrizations.spectral_norm, torch.nn.utils.spectral_norm],
    ids=["parametrization", "older function"],
)
def test_copies_the_unit_vectors_of_spectral_norm(spectral_norm):
    """A2: the averages of both vectors are those of the model, and keep their length."""
    torch.manual_seed(0)
    layer = spectral_norm(torch.nn.Linear(3, 4))

    def act(model, i):
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape))
        with torch.enable_grad():
            model(torch.ones(1, 3))

    averages = averaged_over(layer, act, n_steps=20)
    averaged = dict(averages.named_buffers())
    assert same(dict(layer.named_buffers()), averaged)
    assert [pytest.approx(1.0)] * 2 == [float(vector.norm()) for vector in averaged.values()]


def test_averages_other_buffers_with_such_names():
    """A2: statistics called mean_u and mean_v, as of wind, are averaged like all others."""

    def act(model, i):
        model.mean_u.fill_(i)

    averages = averaged_over(Buffers(mean_u=torch.zeros(()), mean_v=torch.zeros(())), act)
    assert 0.5 * (0.5 * 0 + 0.5 * 1) + 0.5 * 2 == float(averages.mean_u)


def test_infinite_elements_of_buffers_stay_as_they_are():
    """A2: the mask of causal attention is no NaN in the averages; finite elements are averaged."""

    def act(model, i):
        model.mask[0] = i
        model.range.fill_(torch.inf if i == 0 else 3.0)  # an observer that has seen nothing yet

    model = Buffers(mask=torch.tensor([0.0, -torch.inf, torch.inf]), range=torch.zeros(()))
    averages = averaged_over(model, act)
    assert [1.25, -torch.inf, torch.inf] == averages.mask.tolist()
    assert 3.0 == float(averages.range)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "to_sparse", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr], ids=["COO", "CSR"]
)
def test_copies_sparse_buffers(to_sparse):
    """A2: sparse buffers are those of the model, also where other elements are not zero now."""

    def act(model, i):
        dense = torch.eye(3)
        dense[0, :i] = 2.0
        model.graph = to_sparse(dense)

    model = Buffers(graph=to_sparse(torch.eye(3)))
    averages = averaged_over(model, act)
    expected = model.graph.to_dense()
    assert torch.equal(expected, averages.graph.to_dense())
    assert model.graph is not averages.graph
    ema = Ema(0.5)
    loop = TrainTestLoop(model, [Change(act), ema], range(3), range(1))
    loop.train(2)  # validates
    other = Ema(0.5)
    other.load_state_dict(ema.state_dict())
    TrainTestLoop(Buffers(graph=to_sparse(torch.eye(3))), [other]).test(range(1))
    assert torch.equal(expected, other.averaged.module.graph.to_dense())


@pytest.mark.parametrize("in_place", [True, False], ids=["resized", "replaced"])
def test_begins_again_with_a_buffer_of_another_shape(in_place):
    """A2: its average begins with the new value; that of the weights continues."""

    def act(model, i):
        model.weight.fill_(i)
        queue = torch.full([2 if i < 2 else 3], float(i))  # as long twice, then longer
        if in_place:
            model.queue.resize_(queue.shape).copy_(queue)
        else:
            model.queue = queue

    averages = averaged_over(Buffers(queue=torch.zeros(1)), act, n_steps=4)
    assert [2.5] * 3 == averages.queue.tolist()
    assert 0.5**3 * 0 + 0.5**3 * 1 + 0.5**2 * 2 + 0.5 * 3 == averages.weight.item()


def test_a_buffer_that_has_changed_its_shape_since_the_step_is_left_alone(recorder):
    """A2: it has no average to validate with, and keeps what validation makes of it."""

    class Grow(LoopComponent):
        def on_epoch_end(self, loop):
            loop.model.queue = torch.zeros(len(loop.model.queue) + 1)

    model = Buffers(queue=torch.zeros(1))
    seen = recorder("on_batch_begin", lambda loop: (loop.epoch_desc, len(loop.model.queue)))
    loop = TrainTestLoop(model, [seen, Ema(0.05), Grow()], range(1), range(1))
    loop.train(2)
    assert [("train", 1), ("valid", 2), ("train", 3), ("valid", 4)] == seen.seen
    assert 5 == len(model.queue)


def test_a_buffer_that_validation_resizes_is_restored():
    """A2: a cache that grows in validation has its own shape and value again afterwards."""

    class Grow(LoopComponent):
        def on_forward_pass(self, loop):
            if loop.is_validating:
                loop.model.cache = torch.zeros(5)

    model = Buffers(cache=torch.ones(2))
    TrainTestLoop(model, [Ema(0.5), Grow()], range(1), range(1)).train(1)
    assert [1.0, 1.0] == model.cache.tolist()


def test_a_state_with_a_buffer_of_another_shape_can_be_loaded():
    """A2: averages are resumed where the buffer of the new model is still short."""
    saved = Ema(0.5)
    TrainTestLoop(Buffers(queue=torch.ones(3)), [saved], range(2)).train(1)
    resumed = Ema(0.5)
    resumed.load_state_dict(saved.state_dict())
    TrainTestLoop(Buffers(queue=torch.zeros(1)), [resumed]).test(range(1))
    assert same(saved.averaged.state_dict(), resumed.averaged.state_dict())


def test_a_state_with_a_weight_of_another_shape_is_refused():
    """A2: other sizes of buffers are loaded, those of weights are another model."""
    saved, other = Ema(0.5), Ema(0.5)
    TrainTestLoop(torch.nn.Linear(2, 1), [saved], range(1)).train(1)
    other.load_state_dict(saved.state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for module\.weight"):
        TrainTestLoop(torch.nn.Linear(3, 1), [other]).test(range(1))


def test_follows_tensors_that_appear_and_disappear():
    """A2: averages of a buffer that is made later, and of a lazy layer, begin when it is there."""

    def act(model, i):
        model.weight.fill_(i)
        model.early = torch.zeros(1) if i < 1 else None
        model.late = torch.full([2], float(i)) if i else None
        if i == 1:
            with torch.enable_grad():
                model.head(torch.ones(1, 2))
        if i:
            model.head.weight.fill_(i)

    model = Buffers(early=torch.zeros(1), late=None)
    model.head = torch.nn.LazyLinear(1)
    averages = averaged_over(model, act)
    assert averages.early is None
    assert [1.5, 1.5] == averages.late.tolist()
    assert [[1.5, 1.5]] == averages.head.weight.tolist()
    assert 1.25 == averages.weight.item()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_averages_models_that_keep_tensors_with_a_graph():
    """A2: weight_norm and a stored auxiliary loss, which torch does not copy, do not hinder."""

    def act(model, i):
        with torch.enable_grad():
            loss = model(torch.ones(1, 3)).square().sum()
            model.auxiliary = [loss]
            gradients = torch.autograd.grad(loss, list(model.parameters()))
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.sub_(gradient, alpha=0.01)
        history.append([parameter.clone() for parameter in model.parameters()])

    history = []
    model = torch.nn.utils.weight_norm(torch.nn.Linear(3, 2))
    averages = averaged_over(model, act)
    first, second, third = history
    expected = [0.25 * a + 0.25 * b + 0.5 * c for a, b, c in zip(first, second, third, strict=True)]
    torch.testing.assert_close(expected, [p.detach() for p in averages.parameters()])
    assert not averages.auxiliary[0].requires_grad
    assert averages(torch.ones(1, 3)).requires_grad


# -- a decay that does not fit the length of a run -----------------------------------------------


@pytest.fixture
def warnings_of(make_loop):
    """Return a function that trains for some steps with averages, and returns its warnings."""

    def warnings_of(ema, n_steps, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop = make_loop(ema, **{"valid_data": VALID, **options})
            loop.train(n_optim_steps=n_steps)
        return [str(warning.message) for warning in caught if "'ema'" in str(warning.message)]

    return warnings_of


def test_a_decay_too_slow_for_the_run_gives_a_warning_with_one_that_fits(warnings_of):
    """It says how much of the averages the first weights are, and the line to write."""
    (message,) = warnings_of(Ema(), 30)
    assert "about 1000 steps with decay=0.999" in message
    assert "97% of the weights" in message
    fitting = float(re.search(r"use\('ema', decay=(0\.\d+)\)", message)[1])
    assert 0.901 == fitting
    assert [] == warnings_of(Ema(fitting), 30)


def test_what_the_warning_says_is_what_happens(make_loop, recorder):
    """The first weights have the share in the averages that it says."""
    ema = Ema(0.9)
    weights = recorder("on_optim_step", lambda loop: loop.model[0].weight.detach().clone())
    make_loop(weights, ema).train(n_optim_steps=5)
    weights = torch.stack(weights.seen)
    shares = torch.tensor([0.9**4, *(0.1 * 0.9 ** (3 - i) for i in range(4))])
    expected = (shares[:, None, None] * weights).sum(dim=0)
    torch.testing.assert_close(expected, ema.averaged.module[0].weight.detach())


@pytest.mark.parametrize(
    ("ema", "options"),
    [
        (Ema(), {"valid_data": None}),  # as of forks in which another component looks for a rate
        (Ema(1), {}),  # no step is meant to count
        (Ema(start_step=12), {}),  # nothing is averaged
        (Ema(0.5, start_step=4), {}),
    ],
    ids=["no validation", "decay 1", "never", "late, but long enough"],
)
def test_no_warning_where_there_is_nothing_to_warn_of(warnings_of, ema, options):
    """Runs without validation, and those whose averages leave the first weights behind."""
    assert [] == warnings_of(ema, 12, **options)


def test_averages_that_continue_give_no_warning(make_loop, warnings_of):
    """A second train() of a loop has the averages of the first one."""
    ema = Ema(0.9)
    assert 1 == len(warnings_of(ema, 12))
    assert [] == warnings_of(ema, 12)
