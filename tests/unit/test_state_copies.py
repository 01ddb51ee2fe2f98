"""loop.state_dict(): a state is a copy that training does not change."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import act_at
from recording import Recorder, StateRecorder
from states import Holder, is_same, make_data, make_step_loop, take_state

from ttl_core import StateError
from ttl_core.state.snapshot import snapshot

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_state_does_not_change_as_training_continues():
    """By default, a state is a copy."""
    copies = []
    recorder = StateRecorder()
    copy_newest = act_at(
        "on_safe_point", lambda loop: copies.append(copy.deepcopy(recorder.states[-1]))
    )
    make_step_loop(recorder, copy_newest).train(2)
    assert all(map(is_same, copies, recorder.states))
    weights = [state["model"]["0.weight"] for state in recorder.states]
    assert not any(map(torch.equal, weights, weights[1:]))


def test_without_a_copy_a_state_changes_as_training_continues():
    """With copy=False, its tensors are those of the loop: all states are the last one."""
    recorder = StateRecorder(copy=False)
    loop = make_step_loop(recorder)
    loop.train(2)
    pointers = {state["model"]["0.weight"].data_ptr() for state in recorder.states}
    assert {loop.model[0].weight.data_ptr()} == pointers


def test_tied_weights_are_one_tensor_in_a_copy():
    """What is one tensor in the loop is one tensor in the copy, so a file holds it once."""
    layers = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    model = torch.nn.Sequential(*layers)
    model[1].weight = model[0].weight
    weights = take_state(model=model)["model"]
    assert weights["0.weight"] is weights["1.weight"]
    assert weights["0.weight"] is not weights["2.weight"]
    assert weights["0.weight"].data_ptr() != model[0].weight.data_ptr()


def test_a_copy_keeps_the_versions_of_a_models_modules():
    """A module that converts the state of its older versions recognizes one of its own version."""

    class Doubled(torch.nn.Linear):
        """A layer whose weights are twice those of version 1."""

        _version = 2

        def _load_from_state_dict(self, state, prefix, metadata, *rest):
            if metadata.get("version", 1) < 2:
                state[f"{prefix}weight"] = 2 * state[f"{prefix}weight"]
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    state = take_state(model=Doubled(4, 2))
    loop = make_step_loop(model=Doubled(4, 2))
    loop.load_state_dict(state)
    loop.test(make_data(1))
    assert torch.equal(state["model"]["weight"], loop.model.weight)


def pointers(state):
    """Return the addresses of the tensors in a nested value."""
    if isinstance(state, torch.Tensor):
        return {state.data_ptr()} if state.numel() else set()
    values = state.values() if isinstance(state, dict) else state
    return set().union(*map(pointers, values)) if isinstance(state, dict | list | tuple) else set()


def test_a_copy_can_reuse_the_memory_of_an_earlier_one():
    """With out=, the tensors have the addresses of those in the earlier state, and new values."""

    def take_again(loop):
        earlier = loop.state_dict()
        before = pointers(earlier)
        again = loop.state_dict(out=earlier)
        return before == pointers(again), is_same(loop.state_dict(), again)

    recorder = Recorder("on_safe_point", take_again)
    make_step_loop(recorder).train(1)
    assert [(True, True)] * 3 == recorder.seen


trees = st.recursive(
    st.integers(0, 3)
    | st.builds(
        lambda shape, value: torch.full(shape, float(value)),
        st.lists(st.integers(0, 3), max_size=2),
        st.integers(-3, 3),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(trees, trees)
def test_a_copy_into_another_is_the_same_as_a_new_one(before, now):
    """Whatever the earlier state and its shapes were, the copy has the new values."""
    copied = snapshot(now, snapshot(before))
    assert is_same(now, copied)
    assert not pointers(now) & pointers(copied)


def test_values_that_are_no_longer_one_tensor_are_two_in_a_copy_into_another():
    """A best value that was also the last one keeps its value when the last one changes."""
    first = torch.tensor(1.0)
    earlier = snapshot({"best": first, "last": first})
    now = {"best": first, "last": torch.tensor(2.0)}
    assert is_same(now, snapshot(now, earlier))


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ({1}, lambda value: value.add(2)),
        (Counter("a"), lambda value: value.update("b")),
        (bytearray(b"a"), lambda value: value.append(1)),
    ],
    ids=["set", "Counter", "bytearray"],
)
def test_everything_that_can_change_is_copied(value, change):
    """A value that a component may change is copied, or refused."""
    try:
        state = take_state(Holder(value))["components"]["holder"]
    except StateError:
        return
    before = copy.deepcopy(value)
    change(value)
    assert {"best": before} == state
