"""The conformance suites of installed components, each check in a process of its own.

`python -P -m ttl_core.testing.installed REQUEST` is what `ttl check` runs: it prints a line of JSON
for each case of a check.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from ttl_core import discovery
from ttl_core.components.component import Item
from ttl_core.components.hints import read_hints
from ttl_core.errors import PluginError, TTLError
from ttl_core.loop import TrainTestLoop
from ttl_core.processes import call_forked
from ttl_core.testing.conformance import ComponentConformance
from ttl_core.testing.effect import reason_for_doubt
from ttl_core.testing.step import Step

Row = dict[str, Any]


Company = Sequence[str | Mapping[str, Any]]
"""The names of components, or each with its configuration: a mapping of one to the other."""

_UNCLEAR = "unclear: "


def suite_of(
    plugin: str, config: Mapping[str, Any], company: Company
) -> type[ComponentConformance]:
    """Return the conformance suite of an installed component.

    It is the one that its distribution declares in the group `ttl.conformance`, where neither
    configuration nor company is given; else it tests the component behind `Step`, what it
    requires, and its company.

    Args:
        plugin: its name, or "distribution/name".
        config: its configuration.
        company: the names of other components, or mappings of one to its configuration.
    """
    component = discovery.find(plugin)
    if not config and not company:
        for declared in discovery.scan().entries["conformance"].get(component.name, ()):
            if declared.distribution == component.distribution:
                suite = discovery.load(declared)
                if isinstance(suite, type) and issubclass(suite, ComponentConformance):
                    return suite
                raise PluginError(
                    f"conformance {declared} cannot be used: its entry point "
                    f"{declared.entry_point.value!r} is {suite!r}, not a subclass of "
                    f"ComponentConformance. Report it to the author of {declared.distribution}"
                )
    others = discovery.from_config(company)
    given = {other.plugin.rpartition("/")[2] for other in others}
    requires = read_hints(discovery.load(component), f"component {component}").requires
    missing = [name for name in requires if name not in given]
    items: list[Item] = [*missing, *others, *discovery.from_config([{plugin: config}])]

    class DefaultSuite(ComponentConformance):
        def make_components(self) -> list[Item]:
            return [Step(), *items]

        def test_has_an_effect(self) -> None:
            """A run shows that the component has acted: else the other checks say little."""
            reason = reason_for_doubt(self)
            if reason:
                pytest.xfail(_UNCLEAR + reason)

    return DefaultSuite


def main(arguments: Sequence[str]) -> int:
    """Run the suites of components.

    Args:
        arguments: one, in JSON: `components` with their full names, the `config` and `company` of
            each, and the `seconds` that a case may take.

    Returns:
        The exit status: 0 if all were run, whatever became of them.
    """
    request = json.loads(arguments[0])
    given, seconds = (request["config"], request["company"]), request["seconds"]
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is tested may print

    def tell(plugin: str, check: str, result: Row) -> None:
        row = {"component": plugin, "check": check, "case": None, "seconds": 0.0, **result}
        print(json.dumps(row), file=report, flush=True)

    suites = []
    for plugin in request["components"]:
        tried = call_forked(partial(_find_problem, plugin, *given), seconds)
        problem = tried.value or (tried.failure and f"creating it {tried.failure}")
        if problem:
            tell(plugin, "is_created", {"outcome": "failed", "reason": problem})
        else:
            suites.append(plugin)
    if not suites:
        return 0
    # what torch imports with the first optimizer takes longer than most checks
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("pytest.ini").write_text("[pytest]\n")
        lines = ["from ttl_core.testing.installed import suite_of"]
        lines += [f"Test{i} = suite_of({suite!r}, *{given!r})" for i, suite in enumerate(suites)]
        Path("test_installed.py").write_text("\n".join(lines))
        forking = _Forking(suites, seconds, tell)
        return int(pytest.main(["-p", "no:cacheprovider", "test_installed.py"], [forking]))


def _find_problem(plugin: str, config: Mapping[str, Any], company: Company) -> str | None:
    """Return why a component cannot be tested; None if it can."""
    try:
        suite = suite_of(plugin, config, company)
        if suite.__module__ == __name__:  # others may need fixtures
            TrainTestLoop(suite.make_model(), suite().make_components(), suite.make_data())
    except TTLError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        return f"creating it raised {type(error).__name__}: {error}"
    return None


class _Forking:
    """A plugin of pytest that runs each test in a fork, and tells its result.

    Args:
        plugins: the components that are tested, by the numbers of the test classes.
        seconds: how long a test may take.
        tell: takes a component, the name of a check, and its result.
    """

    def __init__(
        self, plugins: Sequence[str], seconds: float, tell: Callable[[str, str, Row], None]
    ) -> None:
        self._plugins = plugins
        self._seconds = seconds
        self._tell = tell
        self._reports: list[pytest.TestReport] | None = None  # a list in a fork

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> bool | None:
        """Run a test in a fork; there, leave it to pytest."""
        if self._reports is not None:
            return None
        started = time.monotonic()
        outcome = call_forked(lambda: self._run(item), self._seconds)
        result = outcome.value or {"outcome": "failed", "reason": f"it {outcome.failure}"}
        result["seconds"] = time.monotonic() - started
        result["case"] = item.callspec.id if hasattr(item, "callspec") else None
        number = item.nodeid.split("::")[1].removeprefix("Test")
        self._tell(self._plugins[int(number)], item.originalname, result)
        return True

    def _run(self, item: pytest.Function) -> Row:
        os.chdir(tempfile.mkdtemp(dir=item.path.parent))
        reports = self._reports = []
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        self._reports = None
        return next(filter(None, map(_problem_in, reports)), {"outcome": "passed", "reason": None})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the reports of a test, in the fork."""
        if self._reports is not None:
            self._reports.append(report)


def _problem_in(report: pytest.TestReport) -> Row | None:
    """Return what a report of a test says, unless it has passed."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else report.longreprtext
        return {"outcome": "failed", "reason": reason, "traceback": report.longreprtext}
    if report.skipped:
        # of a skipped test it is (path, line, reason)
        is_xfail = hasattr(report, "wasxfail")
        reason = str(report.wasxfail if is_xfail else cast(Any, report.longrepr)[2])
        for prefix in ("Skipped: ", "reason: ", "opted out: "):
            reason = reason.removeprefix(prefix)
        outcome = "unclear" if reason.startswith(_UNCLEAR) else "opted out"
        return {"outcome": outcome, "reason": reason.removeprefix(_UNCLEAR)}
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
