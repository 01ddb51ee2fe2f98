"""What is said of components that are configured in another way when a run resumes."""

import logging

import pytest

from ttl_core import LoopComponent, use
from ttl_core.testing import Step, tiny_loop


class Keep(LoopComponent):
    """A record of the state at the first safe point."""

    state = None

    def on_safe_point(self, loop):
        self.state = self.state or loop.state_dict()


class Scale(LoopComponent):
    def __init__(self, by, clip=None):
        self.by, self.clip = by, clip


def logged(caplog, before, now):
    """Return what is logged where a run resumes with other components."""
    first = tiny_loop(Step(), Keep(), *before)
    first.train(n_epochs=1)
    state = first.components["keep"].state
    with caplog.at_level(logging.WARNING):
        second = tiny_loop(Step(), Keep(), *now)
        second.load_state_dict(state)
        second.train(n_epochs=1)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        (use("ema", decay=0.1), use("ema", decay=0.2), "ema decay: 0.1 saved, 0.2 new"),
        (Scale(2), Scale(3), "scale by: 2 saved, 3 new"),
        (Scale(2), Scale(2, 1.5), "scale clip: the default saved, 1.5 new"),
    ],
    ids=["by name", "made by hand", "one that is given now"],
)
def test_another_configuration_is_logged(caplog, before, now, line):
    """With the component, the argument, and both values."""
    (message,) = logged(caplog, [before], [now])
    assert message == (
        "the run resumes with another configuration than its state was taken with:\n    " + line
    )


def test_the_same_configuration_is_not_logged(caplog):
    """Neither are components that join or leave."""
    assert [] == logged(caplog, [use("ema", decay=0.1)], [use("ema", decay=0.1), Scale(1)])
