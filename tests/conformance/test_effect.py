"""What `ttl check` says of components of which its checks see nothing, and their companions."""

from types import SimpleNamespace

import pytest
from specimens import kit_for

from ttl_core import LoopComponent, hookimpl
from ttl_core.testing import fake_distribution
from ttl_core.testing.effect import reason_for_doubt
from ttl_core.testing.installed import _problem_in, suite_of


class Scale(LoopComponent):
    """A component that acts after some batches.

    Args:
        start: how many.
    """

    def __init__(self, start=100):
        self.start = start

    def on_backward_pass(self, loop):
        if loop.global_step >= self.start:
            loop.model[0].weight.grad *= 2


class Waits(LoopComponent):
    """A component that acts at a point of another one."""

    @hookimpl(optionalhook=True)
    def scale_on_draw(self, loop):
        self.acted = True


class Needs(Waits):
    """A component that requires another one."""

    requires = ("acme-scale",)


class Counts(LoopComponent):
    """A component that acts on itself alone."""

    n = 0

    def on_epoch_end(self, loop):
        self.n += 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Waits, "none of its hooks was called. Configure it"),
        (Scale, "come to the same with it and without it"),
        (lambda: Scale(start=1), ""),
        (Counts, ""),
    ],
)
def test_it_is_said_where_nothing_has_happened(make, words):
    """A component that was not called, or has changed nothing, passes checks that say little."""
    reason = reason_for_doubt(kit_for(make))
    assert words in reason
    assert bool(words) == bool(reason)


def test_it_is_an_outcome_of_its_own():
    """A doubt is neither a failure nor a check that an author has opted out of."""
    report = SimpleNamespace(failed=False, skipped=True, wasxfail="reason: unclear: as it slept")
    assert {"outcome": "unclear", "reason": "as it slept"} == _problem_in(report)


def test_a_companion_is_configured():
    """Company may have configuration, also where the component requires it."""
    with fake_distribution("acme-ttl", {"acme-scale": Scale, "acme-needs": Needs}):
        for company, start in ([[], 100], [[{"acme-scale": {"start": 1}}], 1]):
            _, companion, _ = suite_of("acme-needs", {}, company)()._loop().components
            assert start == companion.start
