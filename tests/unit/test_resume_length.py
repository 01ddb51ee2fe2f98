"""loop.load_state_dict(): the length of a resumed run, and earlier runs of a restarted script."""

from __future__ import annotations

import pytest
from loops import act_at
from recording import StateRecorder
from states import is_same, make_step_loop, resume, take_state

from ttl_core import ArgumentError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_fewer_epochs_than_are_completed_are_an_error():
    """n_epochs counts from the original start of that train()."""
    state = take_state(n_epochs=3, index=-1)
    with pytest.raises(ArgumentError, match=r"n_epochs is 2, but the state was taken .*\b3\b"):
        resume(state, n_epochs=2)
    assert 3 == resume(state, n_epochs=3).epoch_num


def test_fewer_steps_than_are_completed_are_an_error():
    """n_optim_steps counts from the original start of that train()."""
    state = take_state(n_epochs=2, index=3)
    short, longer = make_step_loop(), make_step_loop()
    for loop in (short, longer):
        loop.load_state_dict(state)
    with pytest.raises(ArgumentError, match=r"n_optim_steps is 3, but .* after 4 "):
        short.train(n_optim_steps=3)
    longer.train(n_optim_steps=5)
    assert 5 == longer.global_step


def test_earlier_calls_of_train_return_at_once():
    """In a restarted script, calls of train() before that of the state fire no hook."""
    recorder = StateRecorder()
    loop = make_step_loop(recorder)
    loop.train(1)
    loop.train(2)
    points = []
    other = make_step_loop(
        StateRecorder(), act_at("on_train_begin", lambda loop: points.append(loop.epoch_num))
    )
    other.load_state_dict(recorder.states[4])
    other.train(1)
    assert ([], 3) == (points, other.global_step)
    other.train(2)
    assert ([1], 9, 3) == (points, other.global_step, other.epoch_num)
    assert is_same(loop.model.state_dict(), other.model.state_dict())


def test_a_run_that_had_finished_loads_and_returns():
    """Nothing is trained, and the model is the one with which the run ended."""
    points, states = [], []
    full = make_step_loop(
        act_at("on_train_end", lambda loop: states.append(loop.state_dict(allow_unsafe=True)))
    )
    full.train(2)
    loop = make_step_loop(
        act_at("on_epoch_begin", points.append),
        act_at("on_train_end", lambda loop: points.append("end")),
    )
    loop.load_state_dict(states[0])
    loop.train(2)
    assert (["end"], 6, 2) == (points, loop.global_step, loop.epoch_num)
    assert is_same(full.model.state_dict(), loop.model.state_dict())


def test_a_run_that_was_stopped_loads_and_returns():
    """A stopped run stays stopped in the restarted script, whatever its number of epochs."""
    states = []
    make_step_loop(
        act_at("on_safe_point", lambda loop: loop.global_step == 4 and loop.stop()),
        act_at("on_train_end", lambda loop: states.append(loop.state_dict(allow_unsafe=True))),
    ).train(9)
    loop = make_step_loop()
    loop.load_state_dict(states[0])
    loop.train(9)
    assert (4, 1) == (loop.global_step, loop.epoch_num)
    assert is_same(states[0]["model"], loop.model.state_dict())
