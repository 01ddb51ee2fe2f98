"""C3: what a train() call that is skipped had left is there when it returns."""

from __future__ import annotations

import pytest
import torch
from loops import act_at
from recording import StateRecorder
from states import Holder, is_same, make_data, make_model, make_step_loop

from ttl_core import LoopComponent

pytestmark = pytest.mark.usefixtures("one_thread")

CALLS = (2, 1, 3)
"""The lengths of three train() calls in epochs."""


def log_step(loop):
    """Log a value of the epoch."""
    if loop.is_training:
        loop.log({"step": loop.global_step}, level="epoch")


def make_loop(*components, model=None, value=0):
    """Return a loop that logs a value an epoch, with a component that has state."""
    parts = [act_at("on_epoch_end", log_step), Holder(value), StateRecorder(), *components]
    return make_step_loop(*parts, model=model, data=make_data(2))


def left(loop):
    """Return what a train() has left besides the model."""
    names = ("epoch_num", "global_step", "optim_step_num", "n_epochs", "n_optim_steps", "metrics")
    return {name: getattr(loop, name) for name in names} | {
        "holder": loop.components["holder"].value
    }


def full_run():
    """Return what each train() has left, and the states of the run with their train_num."""
    loop, ends = make_loop(value=7), []
    for n_epochs in CALLS:
        loop.train(n_epochs)
        ends.append(left(loop) | {"metrics": dict(loop.metrics)})
    return ends, loop.components["state-recorder"].states


def load_in(point, state):
    """Return a component that loads a state at a point, once."""
    todo = [state]
    return act_at(point, lambda loop: loop.load_state_dict(todo.pop()) if todo else None)


@pytest.mark.parametrize("point", [None, "around_run", "on_train_begin"])
def test_between_two_calls_everything_is_as_it_was(point):
    """C3: counters and metrics are those of its end; model and components those of the state."""
    ends, states = full_run()
    state = next(s for s in states if s["position"]["train_num"] == 3)
    loop = make_loop(*([] if point is None else [load_in(point, state)]))
    if point is None:
        loop.load_state_dict(state)
    for n_epochs, expected in zip(CALLS, ends, strict=True):
        loop.train(n_epochs)
        assert expected == left(loop)
        if expected is not ends[-1]:
            assert is_same(dict(state["model"]), dict(loop.model.state_dict()))
    assert 6 * 2 == loop.global_step


def test_states_saved_after_resuming_know_the_earlier_calls():
    """C3: a second resume restores what the first one did."""
    ends, states = full_run()
    state = next(s for s in states if s["position"]["train_num"] == 3)
    loop = make_loop()
    loop.load_state_dict(state)
    for n_epochs in CALLS:
        loop.train(n_epochs)
    again = make_loop()
    again.load_state_dict(loop.components["state-recorder"].states[-1])
    again.train(CALLS[0])
    assert ends[0] == left(again)


def test_a_state_of_an_earlier_version_restores_what_it_has():
    """C3: without a record of the earlier calls, the counters are those of the next one's begin."""
    ends, states = full_run()
    state = next(s for s in states if s["position"]["train_num"] == 2)
    del state["earlier"]
    loop = make_loop()
    loop.load_state_dict(state)
    loop.train(CALLS[0])
    assert (ends[0]["epoch_num"], ends[0]["global_step"]) == (loop.epoch_num, loop.global_step)
    assert state["metrics"] == loop.metrics
    assert is_same(dict(state["model"]), dict(loop.model.state_dict()))


def test_a_model_that_is_changed_in_between_is_not_restored_and_named():
    """C3: a head that is exchanged between two calls is no error; code in between is warned."""

    def script(loop, expect_warning=False):
        if expect_warning:
            with pytest.warns(UserWarning, match="number 1 is skipped.* 2.bias has shape"):
                loop.train(1)
        else:
            loop.train(1)
        loop.model[2] = torch.nn.Linear(8, 2)
        loop.train(1)
        return loop

    class Narrow(LoopComponent):
        """A component that pads the scores of the first head."""

        def on_forward_pass(self, loop):
            loop.scores = torch.nn.functional.pad(loop.scores, (0, 2 - loop.scores.shape[1]))

    def narrow():
        model = make_model()
        model[2] = torch.nn.Linear(8, 1)
        return model

    def make():
        loop = make_loop(model=narrow())
        loop.components.insert(1, Narrow())
        return loop

    states = script(make()).components["state-recorder"].states
    resumed = make()
    resumed.load_state_dict(states[2])
    script(resumed, expect_warning=True)
    assert is_same(states[-1]["model"], resumed.components["state-recorder"].states[-1]["model"])


@pytest.mark.parametrize("in_between", ["train", "test"])
def test_what_a_component_does_to_its_state_in_between_is_undone(in_between):
    """C3: its state is loaded twice, and changing tensors in place does not change the state."""
    full = make_loop(value=torch.ones(2))
    for n_epochs in CALLS[:2]:
        full.train(n_epochs)
    state = full.components["state-recorder"].states[-1]
    loop = make_loop(value=torch.zeros(2))
    loop.load_state_dict(state)
    if in_between == "test":
        loop.test(make_data(1))
        loop.components["holder"].value.fill_(7)
    loop.train(CALLS[0])
    loop.components["holder"].value.fill_(7)
    loop.train(CALLS[1])
    assert torch.equal(torch.ones(2), loop.components["holder"].value)
