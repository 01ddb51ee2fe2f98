"""Resuming from a state that was taken when a validation began at a safe point."""

from __future__ import annotations

import pytest
import torch
from states import make_data, make_step_loop

from ttl_core import LoopComponent, hookimpl

pytestmark = pytest.mark.usefixtures("one_thread")


class Validate(LoopComponent):
    """Validation at each safe point, of which one takes the state when it begins."""

    def __init__(self, take_at=None):
        self.take_at = take_at
        self.seen = []
        self.state = None

    def on_safe_point(self, loop):
        self.seen.append((loop.epoch_num, loop.global_step, loop.is_training))
        loop.validate()

    @hookimpl(wrapper=True, tryfirst=True)
    def around_epoch(self, loop):
        if loop.is_validating and loop.can_take_state and len(self.seen) == self.take_at:
            self.state = loop.state_dict()
        return (yield)

    def on_forward_pass(self, loop):
        if loop.is_validating:
            self.seen.append(torch.rand(1).item())


def train(take_at=None, state=None):
    """Return the loop of a run of two epochs, and its component."""
    component = Validate(take_at)
    torch.manual_seed(0 if state is None else 1)
    loop = make_step_loop(component, valid_data=make_data(1))
    if state is not None:
        loop.load_state_dict(state)
    loop.train(2)
    return loop, component


@pytest.mark.parametrize("take_at", [1, 3, 5, 8, 10, 17])
def test_the_safe_point_is_called_again(take_at):
    """The validation is made from its start, and what follows has the bits of a whole run."""
    full, whole = train(take_at)
    resumed, rest = train(state=whole.state)
    assert whole.seen[take_at - 1 :] == rest.seen
    torch.testing.assert_close(full.model.state_dict(), resumed.model.state_dict(), rtol=0, atol=0)


def test_a_state_of_the_second_of_two_sets_is_refused():
    """Components have changed since the safe point, as soon as the first epoch has begun."""
    possible = []

    class Look(LoopComponent):
        def on_safe_point(self, loop):
            loop.validate()
            possible.append(loop.can_take_state)
            loop.stop()

        @hookimpl(wrapper=True)
        def around_epoch(self, loop):
            if loop.is_validating:
                possible.append(loop.can_take_state)
            return (yield)

    sets = {"one": make_data(1), "two": make_data(1)}
    make_step_loop(Look(), valid_data=sets).train(1)
    assert [True, False, True] == possible
