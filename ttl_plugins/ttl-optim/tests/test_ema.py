"""The behaviour of `ema`."""

import copy

import numpy
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from ttl_optim import Ema

from ttl_core import ArgumentError, LoopComponent
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
    assert same(by_hand.averaged.state_dict(), ema.averaged.state_dict())


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
