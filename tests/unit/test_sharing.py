"""A component in the lists of two loops."""

import pytest

from ttl_core import LoopComponent
from ttl_core.testing import Step, tiny_loop


class Counter(LoopComponent):
    """A component with a state."""

    n = 0

    def on_batch_end(self, loop):
        self.n += 1

    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        self.n = state["n"]


class TrainInside(LoopComponent):
    """A component that trains another loop in each epoch."""

    def __init__(self, *components):
        self.inner = tiny_loop(*components)

    def on_epoch_end(self, loop):
        if loop.is_training:
            self.inner.train(n_epochs=1)


def test_a_component_with_a_state_in_two_loops_that_train_at_once_is_warned_about():
    """Its state would be that of both runs; the warning says which component it is."""
    counter = Counter()
    loop = tiny_loop(Step(), counter, TrainInside(Step(), counter))
    with pytest.warns(UserWarning, match="component 'counter' .* of another loop too"):
        loop.train(n_epochs=1)


def test_loops_that_train_one_after_the_other_may_have_a_component_in_common():
    """Also after a run that has failed, and where it is disabled in the other loop."""

    class Fail(LoopComponent):
        def on_train_end(self, loop):
            raise OSError("disk")

    counter = Counter()
    with pytest.raises(OSError, match="disk"):
        tiny_loop(Step(), counter, Fail()).train(n_epochs=1)
    inside = TrainInside(Step(), counter)
    inside.inner.components.disable("counter")
    loop = tiny_loop(Step(), counter, inside)
    loop.train(n_epochs=1)
    loop.validate()
    tiny_loop(Step(), counter).train(n_epochs=1)


def test_a_component_without_a_state_may_be_in_two_loops_that_train_at_once():
    """As nothing of it is part of either run."""
    step = Step()
    tiny_loop(step, TrainInside(step)).train(n_epochs=1)
