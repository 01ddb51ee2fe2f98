"""load_state_dict() on a loop that has run, and drop_loaded_state()."""

from __future__ import annotations

import random

import pytest
import torch
from loops import act_at
from recording import StateRecorder
from states import Holder, is_same, make_step_loop, take_state
from torch.utils.data import DataLoader, TensorDataset

from ttl_core import LoopComponent, RunError, SeededSampler, StateError, TrainTestLoop
from ttl_core.testing import Step

pytestmark = pytest.mark.usefixtures("one_thread")


class Noise(LoopComponent):
    """A component whose state follows from all random numbers so far."""

    def __init__(self):
        self.total = 0.0

    def on_batch_begin(self, loop):
        self.total = 0.5 * self.total + float(torch.rand(())) + random.random()

    def on_epoch_end(self, loop):
        loop.log({"total": self.total}, level="epoch")

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def make_loop():
    """Return a loop whose data are shuffled, and whose components draw random numbers."""
    torch.manual_seed(0)
    random.seed(0)
    data = TensorDataset(torch.randn(12, 4), torch.arange(12) % 2)
    loader = DataLoader(data, batch_size=4, sampler=SeededSampler(data))
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(), torch.nn.Linear(4, 2))
    return TrainTestLoop(
        model, [Step(), Noise(), StateRecorder()], loader, DataLoader(data, batch_size=6)
    )


def outcome(loop):
    """Return what a run has come to."""
    state = loop.state_dict(allow_unsafe=True)
    parts = ("model", "variables", "metrics", "components", "random", "earlier")
    counters = (loop.epoch_num, loop.global_step, loop.optim_step_num)
    return [*(state[part] for part in parts), counters]


@pytest.mark.parametrize("has_failed", [False, True], ids=["after the run", "after it failed"])
def test_a_loop_that_has_run_resumes_exactly(has_failed):
    """From each safe point, the loop that has run ends as it did, and so does each later call."""
    loop = make_loop()
    loop.train(2)
    expected, states = outcome(loop), loop.components["state-recorder"].states[:]
    for state in states:
        if has_failed:
            fail = act_at("on_backward_pass", lambda loop: 1 // 0)
            loop.components.append(fail)
            with pytest.raises(ZeroDivisionError):
                loop.train(3)
            loop.components.remove(fail)
        loop.load_state_dict(state)
        loop.train(2)
        assert all(map(is_same, expected, outcome(loop)))


def test_a_later_call_of_several_resumes_exactly():
    """A state of the second train() resumes that one, after a third one too."""
    loop = make_loop()
    ends = []
    for n_epochs in (1, 2, 1):
        loop.train(n_epochs)
        ends.append(outcome(loop))
    states = loop.components["state-recorder"].states[:]
    for state in [s for s in states if s["position"]["train_num"] == 2]:
        loop.load_state_dict(state)
        for n_epochs, expected in ((2, ends[1]), (1, ends[2])):
            loop.train(n_epochs)
            assert all(map(is_same, expected, outcome(loop)))


def test_it_resumes_with_more_epochs():
    """The length of a call counts from its beginning, as in a new loop."""
    longer = make_loop()
    longer.train(3)
    loop = make_loop()
    loop.train(1)
    loop.load_state_dict(loop.components["state-recorder"].states[-1])
    loop.train(3)
    assert all(map(is_same, outcome(longer), outcome(loop)))


def test_a_state_of_an_earlier_call_in_the_middle_of_one_is_refused():
    """In on_train_begin of a second train(), the error says when to load it."""
    state, todo = take_state(), []
    loop = make_step_loop(
        act_at("on_train_begin", lambda loop: todo and loop.load_state_dict(todo.pop()))
    )
    loop.train(1)
    todo.append(state)
    with pytest.raises(RunError) as caught:
        loop.train(1)
    expected = (
        "the state was taken in train() number 1 of its loop, but was loaded in the middle of "
        "number 2. Load it before train() is called, which then resumes that one"
    )
    assert expected == str(caught.value)


def test_a_loaded_state_can_be_dropped():
    """Training then starts from where the loop is."""
    loop = make_step_loop(Holder(3))
    loop.train(1)
    loop.load_state_dict(take_state(Holder(5)))
    loop.drop_loaded_state()
    loop.train(1)
    assert (2, 6, 3) == (loop.epoch_num, loop.global_step, loop.components["holder"].value)


def test_a_state_that_does_not_fit_can_be_dropped():
    """After the error, the same loop trains without it."""
    loop = make_step_loop()
    loop.load_state_dict(take_state(Holder()))
    with pytest.raises(StateError, match="the state holds component 'holder'"):
        loop.train(1)
    loop.drop_loaded_state()
    loop.train(1)
    assert (1, 3) == (loop.epoch_num, loop.global_step)


def test_dropping_nothing_has_no_effect():
    """Without a loaded state, and after one was restored, the loop stays as it is."""
    loop = make_step_loop()
    loop.drop_loaded_state()
    loop.train(1)
    loop.drop_loaded_state()
    assert 1 == loop.epoch_num


def test_dropping_a_state_in_a_run_is_refused():
    """The state may be restored already, in part."""
    loop = make_step_loop(act_at("on_train_begin", lambda loop: loop.drop_loaded_state()))
    with pytest.raises(RunError, match=r"drop_loaded_state\(\) was called while this loop is"):
        loop.train(1)
