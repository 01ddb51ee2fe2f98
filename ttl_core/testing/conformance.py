"""The conformance suite: what every component has to do, as tests to inherit."""

from __future__ import annotations

from ttl_core.testing.checks.batches import BatchChecks
from ttl_core.testing.checks.company import CompanyChecks
from ttl_core.testing.checks.data import DataChecks
from ttl_core.testing.checks.endings import EndingChecks
from ttl_core.testing.checks.runs import RunChecks
from ttl_core.testing.checks.source import SourceChecks
from ttl_core.testing.checks.state import StateChecks
from ttl_core.testing.checks.toggling import ToggleChecks
from ttl_core.testing.checks.traces import TraceChecks


class ComponentConformance(
    RunChecks,
    CompanyChecks,
    DataChecks,
    EndingChecks,
    TraceChecks,
    BatchChecks,
    ToggleChecks,
    StateChecks,
    SourceChecks,
):
    """The conformance suite. Subclass it in the tests of a package.

    The component under test is the last one that `make_components` returns; the others are what
    it needs around it. It is tested within that list, and against a control run of the list
    without it.

    A check that a component cannot pass is opted out of by its name, with the reason, which the
    report shows: `opted_out = {"test_takes_streams": "it needs the length of an epoch"}`. What a
    component writes to because that is its job, it declares: `writes = {"weights"}`.

    Example:
        >>> from ttl_core.testing import Step
        >>> class TestStep(ComponentConformance):
        ...     def make_components(self):
        ...         return [Step()]
    """
