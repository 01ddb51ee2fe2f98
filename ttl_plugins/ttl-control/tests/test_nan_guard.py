"""The behaviour of `nan-guard`."""

import math

import numpy
import pytest
import torch

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, hookimpl, use
from ttl_core.testing import ComponentConformance, Step

NAN = math.nan
GOOD, BAD = [1.0, 1.0], [1.0, NAN]


class Record(LoopComponent):
    """A component that records which batches stepped, and checks the weights after each step."""

    def __init__(self):
        self.stepped = []

    def on_optim_step(self, loop):
        self.stepped.append(loop.batch_num)
        assert all(bool(p.isfinite().all()) for p in loop.model.parameters())


class Train(LoopComponent):
    """Steps of training on the sum of scores."""

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, momentum=0.9)

    def on_grads_reset(self, loop):
        loop.optimizer.zero_grad()

    def on_loss_compute(self, loop):
        loop.loss = loop.model(loop.batch).sum()

    def on_backward_pass(self, loop):
        loop.loss.backward()

    def on_optim_step(self, loop):
        loop.optimizer.step()


def make_loop(batches, *others, model=None, **config):
    """Return a guarded loop on batches of one sample each."""
    torch.manual_seed(0)
    components = [Train(), Record(), *others, use("nan-guard", **config)]
    data = [torch.tensor([batch]) for batch in batches]
    return TrainTestLoop(model or torch.nn.Linear(2, 1), components, data)


def test_leaves_a_finite_run_alone():
    """Where everything is finite, every batch steps and there is no reason."""
    loop = make_loop([GOOD] * 3)
    loop.train(n_epochs=1)
    assert ([0, 1, 2], None) == (
        loop.components["record"].stepped,
        loop.components["nan-guard"].reason,
    )


def test_stops_before_the_bad_step(caplog):
    """Training ends before a step with bad gradients, and the reason is logged."""
    loop = make_loop([GOOD, BAD, GOOD])
    loop.train(n_epochs=1)
    reason = "the loss (nan) and the gradient of weight are not finite: train epoch 0, batch 1"
    assert [0] == loop.components["record"].stepped
    assert reason == loop.components["nan-guard"].reason
    assert [f"nan-guard: stop: {reason}"] == caplog.messages


def test_raises():
    """The error names what was not finite, and where."""
    loop = make_loop([GOOD, BAD], action="raise")
    with pytest.raises(RunError, match=r"weight are not finite: train epoch 0, batch 1"):
        loop.train(n_epochs=1)


def test_skips_the_batch_alone():
    """Weights after a run with a bad batch are those of a run without it."""
    loop = make_loop([GOOD, BAD, GOOD], action="skip")
    loop.train(n_epochs=2)
    control = make_loop([GOOD, GOOD])
    control.train(n_epochs=2)
    assert [0, 2, 0, 2] == loop.components["record"].stepped
    assert 2 == loop.components["nan-guard"].n_skipped
    for one, other in zip(loop.model.parameters(), control.model.parameters(), strict=True):
        assert one.tolist() == other.tolist()


def test_skip_drops_what_was_accumulated():
    """With accumulation, skipping a bad batch drops the gradients of its complete window."""

    class Accumulate(LoopComponent):
        def on_batch_begin(self, loop):
            loop.is_stepping = loop.batch_num % 2 == 1

    loop = make_loop([GOOD, BAD, GOOD, GOOD], Accumulate(), action="skip")
    loop.train(n_epochs=1)
    assert [3] == loop.components["record"].stepped


def test_a_bad_loss_is_found_in_batches_that_do_not_step():
    """Where an overflow clears is_stepping in every batch, the loss is checked."""

    class Never(LoopComponent):
        def on_backward_pass(self, loop):
            loop.is_stepping = False

    loop = make_loop([GOOD, [NAN, NAN]], Never())
    loop.train(n_epochs=1)
    assert "the loss (nan) is not finite: train epoch 0, batch 1" == (
        loop.components["nan-guard"].reason
    )


def test_scaled_gradients_of_batches_that_do_not_step_may_overflow():
    """Infinite gradients before unscaling are no error: loss scaling finds its scale by them."""

    class Overflow(LoopComponent):
        def on_backward_pass(self, loop):
            loop.model.weight.grad.fill_(math.inf)
            loop.is_stepping = False

    loop = make_loop([GOOD] * 2, Overflow())
    loop.train(n_epochs=1)
    assert loop.components["nan-guard"].reason is None


def test_an_optimizer_that_skips_by_itself_may_overflow():
    """Where loss scaling lets a fused optimizer skip its step, gradients may be infinite."""

    class Scaled(LoopComponent):
        def on_backward_pass(self, loop):
            loop.model.weight.grad.fill_(math.inf)
            loop.optimizer.found_inf = torch.ones(())

        @hookimpl(tryfirst=True)
        def on_optim_step(self, loop):
            del loop.optimizer.found_inf
            loop.optimizer.zero_grad()

    loop = make_loop([GOOD] * 2, Scaled())
    loop.train(n_epochs=1)
    assert loop.components["nan-guard"].reason is None


def test_skip_drops_gradients_of_parameters_outside_the_model():
    """Parameters that only an optimizer has start the next batch without gradients too."""
    outside = torch.nn.Parameter(torch.ones(()))
    gradients = []

    class Outside(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizer.add_param_group({"params": [outside]})

        def on_loss_compute(self, loop):
            gradients.append(outside.grad)
            loop.loss = loop.loss * outside

    loop = make_loop([BAD, GOOD], Outside(), action="skip")
    loop.train(n_epochs=1)
    assert [None, None] == gradients
    assert bool(outside.isfinite())


def test_skip_drops_the_gradients_of_all_optimizers():
    """Where several optimizers step, the next batch starts without the gradients of any."""
    outside = torch.nn.Parameter(torch.ones(()))
    gradients = []

    class TwoOptimizers(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizers = [loop.optimizer, torch.optim.SGD([outside], lr=0.1)]

        def on_loss_compute(self, loop):
            gradients.append(outside.grad)
            loop.loss = loop.loss * outside

    loop = make_loop([BAD, GOOD], TwoOptimizers(), action="skip")
    loop.train(n_epochs=1)
    assert [None, None] == gradients


class TrainHead(Train):
    """Steps with an optimizer of the last layer only, which alone is cleared before each step."""

    def on_train_begin(self, loop):
        loop.optimizer = torch.optim.SGD(loop.model[1].parameters(), lr=0.1)


@pytest.mark.parametrize("action", ["stop", "skip", "raise"])
def test_a_gradient_that_makes_no_step_may_be_infinite(action):
    """A3: a gradient of no optimizer, which nothing clears and which grows, is not checked."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[0].weight.register_hook(lambda gradient: gradient * math.inf)
    loop = make_loop([GOOD] * 3, model=model, action=action)
    loop.components[0] = TrainHead()
    loop.train(n_epochs=1)
    assert not model[0].weight.grad.isfinite().all()
    assert ([0, 1, 2], None) == (
        loop.components["record"].stepped,
        loop.components["nan-guard"].reason,
    )


def test_checks_parameters_that_only_an_optimizer_has():
    """A3: a parameter outside of the model, as of the loss, is checked with those of the model."""
    outside = torch.nn.Parameter(torch.ones(()))
    outside.register_hook(lambda gradient: gradient * NAN)

    class Outside(LoopComponent):
        def on_train_begin(self, loop):
            loop.optimizer.add_param_group({"params": [outside]})

        def on_loss_compute(self, loop):
            loop.loss = loop.loss * outside

    loop = make_loop([GOOD], Outside())
    loop.train(n_epochs=1)
    assert (
        "the gradient of parameter 2 of loop.optimizers is not finite: train epoch 0, batch 0"
        == loop.components["nan-guard"].reason
    )
    assert bool(outside.isfinite())


def test_checks_parameters_that_join_an_optimizer_in_mid_epoch():
    """A3: after a parameter group was added, its gradients are checked in the same epoch."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))

    class Unfreeze(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num == 1:
                loop.optimizer.add_param_group({"params": [*loop.model[0].parameters()]})
                loop.model[0].weight.register_hook(lambda gradient: gradient * NAN)

    loop = make_loop([GOOD] * 3, Unfreeze(), model=model)
    loop.components[0] = TrainHead()
    loop.train(n_epochs=1)
    assert (
        "the gradient of 0.weight is not finite: train epoch 0, batch 1"
        == loop.components["nan-guard"].reason
    )


def test_without_an_optimizer_all_parameters_of_the_model_are_checked():
    """Where no component has set an optimizer, the gradients of the model are those of a step."""

    class Backward(LoopComponent):
        def on_backward_pass(self, loop):
            loop.model.zero_grad()
            loop.model(loop.batch).sum().backward()

    loop = make_loop([GOOD, BAD])
    loop.components[0] = Backward()
    loop.train(n_epochs=1)
    assert (
        "the gradient of weight is not finite: train epoch 0, batch 1"
        == loop.components["nan-guard"].reason
    )


@pytest.mark.parametrize("first", [0, 1], ids=["in the first batch", "in a later batch"])
def test_checks_lazy_layers_from_their_first_batch_on(first):
    """A10: parameters without a shape are no error, and are checked once they have one."""

    class Lazy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(2, 1)
            self.lazy = torch.nn.LazyLinear(1)
            self.n_calls = 0

        def forward(self, batch):
            self.n_calls += 1
            if self.n_calls <= first:
                return self.head(batch)
            return self.head(batch.nan_to_num()) + self.lazy(batch)

    loop = make_loop([GOOD, GOOD, BAD], model=Lazy())
    loop.components.remove("record")
    loop.train(n_epochs=1)
    assert 2 == loop.global_step
    assert (
        "the loss (nan) and the gradient of lazy.weight are not finite: train epoch 0, batch 2"
        == loop.components["nan-guard"].reason
    )


@pytest.mark.parametrize("place", [0, 9])
def test_checks_after_unscaling(place):
    """A wrapper that unscales gradients, before or after it in the list, acts first."""

    class Unscale(LoopComponent):
        @hookimpl(wrapper=True)
        def on_backward_pass(self, loop):
            loop.model.weight.register_hook(lambda gradient: gradient / 0)
            result = yield
            loop.model.weight.grad = torch.ones(1, 2)
            return result

    loop = make_loop([GOOD])
    loop.components.insert(place, Unscale())
    loop.train(n_epochs=1)
    assert [0] == loop.components["record"].stepped


def test_names_all_parameters_whose_gradients_are_bad():
    """The reason names the parameters with bad gradients and no others."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[0].bias.register_hook(lambda gradient: gradient * math.inf)
    model[1].weight.register_hook(lambda gradient: gradient * NAN)
    loop = make_loop([GOOD], model=model)
    loop.train(n_epochs=1)
    assert (
        "the gradients of 0.bias, 1.weight are not finite: train epoch 0, batch 0"
        == loop.components["nan-guard"].reason
    )


class Odd(torch.nn.Module):
    """A model with unused, frozen, empty, sparse and double-precision parameters."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.ones(1))
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.empty = torch.nn.Parameter(torch.ones(0))
        self.rows = torch.nn.Embedding(3, 2, sparse=True)
        self.wide = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, batch):
        rows = self.rows(torch.tensor([0, 2]))
        return (batch * self.wide).sum() + (rows * batch.nan_to_num(9)).sum() + self.empty.sum()


@pytest.mark.parametrize(("batches", "expected"), [([GOOD], None), ([BAD], "the gradient of wide")])
def test_takes_parameters_of_every_kind(batches, expected):
    """Parameters without gradients, empty, sparse and of mixed types are checked correctly."""
    loop = make_loop(batches, model=Odd())
    loop.components[0] = SumOnly()
    loop.train(n_epochs=1)
    reason = loop.components["nan-guard"].reason
    assert expected == (reason and reason.partition(" and ")[2].partition(" are")[0])


class SumOnly(LoopComponent):
    """A component that computes gradients and takes no step."""

    def on_backward_pass(self, loop):
        loop.model.zero_grad()
        loop.loss = loop.model(loop.batch)
        loop.loss.backward()


@pytest.mark.parametrize(("every", "expected"), [(1, [0]), (2, [0]), (3, [0, 1])])
def test_checks_every_so_many_batches(every, expected):
    """With `every`, batches in between are not checked; what they break is found later."""
    loop = make_loop([GOOD, BAD, GOOD], every=every)
    loop.components.remove("record")
    stepped = []

    class Record(LoopComponent):
        def on_optim_step(self, loop):
            stepped.append(loop.batch_num)

    loop.components.append(Record())
    loop.train(n_epochs=1)
    assert expected == stepped


def test_every_reaches_over_epochs():
    """In epochs shorter than `every`, batches are counted over epochs."""
    loop = make_loop([GOOD], every=3)
    steps = []

    class Break(LoopComponent):
        def on_batch_begin(self, loop):
            steps.append(loop.global_step)
            if loop.global_step == 2:
                loop.batch = loop.batch * NAN

    loop.components.append(Break())
    loop.train(n_epochs=9)
    assert [0, 1, 2] == steps


def test_resumes_counting():
    """Batches since the last check and skipped batches are resumed, as plain data."""
    loop = make_loop([GOOD, GOOD, BAD], every=3, action="skip")
    guard = loop.components["nan-guard"]
    loop.train(n_optim_steps=2)
    assert {"n_skipped": 0, "n_since": 2} == guard.state_dict()
    other = make_loop([BAD, GOOD], every=3, action="skip")
    other.components["nan-guard"].load_state_dict(guard.state_dict())
    other.train(n_epochs=1)
    assert {"n_skipped": 1, "n_since": 1} == other.components["nan-guard"].state_dict()


def test_enabled_in_mid_epoch_it_checks_the_rest():
    """Without on_epoch_begin it lists the parameters in its first batch."""

    class Enable(LoopComponent):
        def on_batch_begin(self, loop):
            loop.components.enable("nan-guard")

    loop = make_loop([GOOD, BAD], Enable(), action="skip")
    loop.components.disable("nan-guard")
    loop.train(n_epochs=1)
    assert [0] == loop.components["record"].stepped


class Slow:
    """An event of a device that has happened after so many queries."""

    def __init__(self, n_queries):
        self.n_queries = n_queries

    def query(self):
        self.n_queries -= 1
        return self.n_queries < 0

    def synchronize(self):
        self.n_queries = 0


@pytest.fixture
def device(monkeypatch):
    """Make the CPU look like a device whose values arrive one check later."""
    from ttl_control import nan_guard

    class Check(nan_guard._Check):
        def copy_to_cpu(self):
            return self._replace(arrival=Slow(1))

        @property
        def values(self):
            return NotCpu(self[1])

    class NotCpu:
        is_cpu = False

        def __init__(self, values):
            self.tolist = values.tolist

    monkeypatch.setattr(nan_guard, "_Check", Check)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("batches", "steps"), [([GOOD, BAD, GOOD, GOOD], 2), ([GOOD, BAD], 2)])
def test_on_a_device_a_check_is_handled_when_its_values_have_arrived(batches, steps):
    """It stops at the next check, or at the end of the epoch, and the reason names the batch."""
    loop = make_loop(batches)
    loop.components.remove("record")
    loop.train(n_epochs=2)
    assert "batch 1" == loop.components["nan-guard"].reason.rpartition(", ")[2]
    assert steps == loop.global_step


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("place", [0, 9], ids=["before", "after"])
def test_an_epoch_that_is_stopped_at_its_end_is_not_logged(place):
    """Stopped at the end of the epoch, components before and after it do not log the epoch."""

    class LogEpoch(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"loss": loop.loss}, level="epoch")

    loop = make_loop([GOOD, BAD])
    loop.components.remove("record")
    loop.components.insert(place, LogEpoch())
    loop.train(n_epochs=2)
    assert {} == loop.metrics


@pytest.mark.usefixtures("device")
def test_on_a_device_skipping_waits():
    """To skip a batch, the check is handled before the step."""
    loop = make_loop([GOOD, BAD, GOOD], action="skip")
    loop.train(n_epochs=1)
    assert [0, 2] == loop.components["record"].stepped


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_nothing_waits_inside_a_batch():
    """Batches pass where synchronising is an error, and NaN stops the run."""

    class Strict(LoopComponent):
        def on_batch_begin(self, loop):
            torch.cuda.set_sync_debug_mode("error")

        def on_safe_point(self, loop):
            torch.cuda.set_sync_debug_mode("default")

    data = [(x.cuda(), y.cuda()) for x, y in ComponentConformance.make_data(40)]
    data[10][0].fill_(NAN)
    model = ComponentConformance.make_model().cuda()
    loop = TrainTestLoop(model, [Step(), "nan-guard", Strict()], data)
    try:
        loop.train(n_epochs=1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert "batch 10" == loop.components["nan-guard"].reason.rpartition(", ")[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"action": "warn"}, "action is 'warn', but has to be 'stop' or 'skip' or 'raise'"),
        ({"every": 0}, "every is 0"),
        ({"every": True}, "every is True"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """Arguments that cannot work are refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        make_loop([], **config)


def test_takes_a_number_of_numpy():
    """A NumPy integer is a whole number."""
    loop = make_loop([GOOD, BAD, GOOD], every=numpy.int64(2))
    loop.train(n_epochs=1)
    assert [0] == loop.components["record"].stepped
