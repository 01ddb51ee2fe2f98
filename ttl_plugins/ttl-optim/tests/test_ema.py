"""What `ema` does."""

import copy

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from ttl_optim import Ema

from ttl_core import LoopComponent
from ttl_core.testing import ComponentConformance

VALID = ComponentConformance.make_data(2)


def copied(model):
    """Return a copy of a model's state."""
    return copy.deepcopy(dict(model.state_dict()))


def same(one, other):
    """Tell whether two states hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class ByHand(LoopComponent):
    """Average as a hand-written loop does."""

    def __init__(self, decay):
        self.decay = decay

    def on_train_begin(self, loop):
        average = get_ema_multi_avg_fn(self.decay)
        self.averaged = AveragedModel(loop.model, multi_avg_fn=average, use_buffers=True)

    def on_optim_step(self, loop):
        self.averaged.update_parameters(loop.model)


@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_averages_are_those_of_the_library_to_the_same_bits(make_loop, place):
    """Wherever it stands, weights and buffers are averaged after the step, as written by hand."""
    ema, by_hand = Ema(0.9), ByHand(0.9)
    loop = make_loop(by_hand)
    loop.components.insert(place, ema)
    loop.train(2)
    assert same(by_hand.averaged.state_dict(), ema.averaged.state_dict())


@pytest.mark.parametrize("run", ["train", "validate", "test"])
def test_validates_and_tests_with_the_averages(make_loop, look, run):
    """In every epoch but training ones the model holds the averages, buffers included."""
    loop = make_loop(Ema(0.5), valid_data=VALID)
    loop.train(1)
    expected = copied(loop.components["ema"].averaged.module)
    seen = look("on_batch_end", lambda loop: loop.is_training or copied(loop.model))
    loop.components.append(seen)
    {
        "train": lambda: loop.train(0) or loop.validate(),
        "validate": loop.validate,
        "test": lambda: loop.test(VALID),
    }[run]()
    assert [True, True] == [same(expected, state) for state in seen.seen]


def test_training_is_not_changed(make_loop):
    """Weights, buffers and optimizer come out as if it had not been there."""
    plain, averaged = make_loop(valid_data=VALID), make_loop(Ema(0.5), valid_data=VALID)
    plain.train(2)
    averaged.train(2)
    assert same(copied(plain.model), copied(averaged.model))


@pytest.mark.parametrize("point", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("end", ["stop", "fail", "interrupt", "disable"])
def test_weights_come_back_whatever_happens(make_loop, point, end):
    """However a validation epoch ends, the model has its own weights, as the same objects."""
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
    """validate() in any place, also between forward and backward pass, leaves training alone."""

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


def test_before_the_first_step_there_are_only_weights(make_loop, look):
    """A test of a loop that has not trained, or before start_step, is one of the weights."""
    loop = make_loop(Ema(0.5, start_step=4), data=ComponentConformance.make_data(4))
    loop.train(1)
    seen = look("on_batch_end", lambda loop: same(before, copied(loop.model)))
    loop.components.append(seen)
    before = copied(loop.model)
    loop.test(VALID)
    assert ([True, True], None) == (seen.seen, loop.components["ema"].averaged)


def test_averaging_begins_with_start_step(make_loop):
    """Steps are counted from 0, and start_step is the first that counts."""
    loop = make_loop(Ema(start_step=4))
    loop.train(1)
    assert 2 == int(loop.components["ema"].averaged.n_averaged)


def test_one_that_comes_on_in_mid_run_begins_with_the_weights_there_are(make_loop):
    """Without replay it averages from its first step on."""

    class On(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.batch_num == 4:
                loop.components.enable("ema")

    loop = make_loop(Ema(), On())
    loop.components.disable("ema")
    loop.train(1)
    assert 2 == int(loop.components["ema"].averaged.n_averaged)


def test_goes_on_from_its_state(make_loop, through_file):
    """A loop that was given model, optimizer and state goes on to the same averages."""
    whole = make_loop(Ema(0.9))
    whole.train(1)
    state = through_file(whole.components["ema"].state_dict())
    resumed = make_loop(Ema(0.9))
    resumed.model.load_state_dict(copied(whole.model))
    resumed.components["ema"].load_state_dict(state)
    whole.train(1)
    resumed.train(1)
    assert same(whole.components["ema"].state_dict(), resumed.components["ema"].state_dict())


def test_tests_with_a_state_that_was_loaded(make_loop, look):
    """Averages that were loaded are used by a test() without any training."""
    trained = make_loop(Ema(0.9))
    trained.train(1)
    expected = copied(trained.components["ema"].averaged.module)
    seen = look("on_batch_end", lambda loop: same(expected, copied(loop.model)))
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


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_refuses_a_decay_that_is_none(decay):
    """What cannot work is refused when the component is made."""
    with pytest.raises(ValueError, match="decay"):
        Ema(decay)
