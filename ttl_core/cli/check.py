"""`ttl check`: the conformance suite of installed components, as a report."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name

from ttl_core import discovery
from ttl_core.arguments import did_you_mean
from ttl_core.cli.commands import add_time_limit
from ttl_core.cli.plugins import all_components, full_name
from ttl_core.cli.text import indent
from ttl_core.discovery import InstalledComponent
from ttl_core.errors import PluginError, UnknownNameError

Row = dict[str, Any]
_OUTCOMES = ("passed", "opted out", "unclear", "failed")
"""From best to worst."""


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl check`."""
    parser.add_argument(
        "name", metavar="NAME", help="a component, or DISTRIBUTION/ for all of a distribution"
    )
    parser.add_argument(
        "--config",
        metavar="KEY=VALUE",
        type=_setting,
        action="append",
        default=[],
        help="an argument of the component, as JSON or as text; may be repeated",
    )
    parser.add_argument(
        "--with",
        metavar="NAME",
        dest="company",
        type=_companion,
        action="append",
        default=[],
        help="another component to put before it, or NAME={...} with its configuration as JSON; "
        "may be repeated",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--badge", action="store_true", help="as JSON for a badge of shields.io")
    add_time_limit(parser, "one check")
    parser.set_defaults(run=_check)


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _companion(text: str) -> str | dict[str, Any]:
    name, equals, config = text.partition("=")
    if not equals:
        return name
    try:
        value = json.loads(config)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither NAME nor NAME={{...}} with a mapping in JSON"
        )
    return {name: value}


def _check(given: argparse.Namespace) -> int:
    if find_spec("pytest") is None:
        raise PluginError("ttl check needs pytest. Run: pip install 'ttl-core[testing]'")
    components = {full_name(component): component for component in _components(given.name)}
    request = {
        "components": list(components),
        "config": dict(given.config),
        "company": given.company,
        "seconds": given.time_limit,
    }
    is_report = not (given.json or given.badge)
    checks = []
    for name, of_component in itertools.groupby(_run(request), lambda row: row["component"]):
        component = components[name]
        if is_report:
            print(f"{component.name} ({component.distribution} {component.version})")
        for check, cases in itertools.groupby(of_component, lambda row: row["check"]):
            checks.append(_Check(component, check, list(cases)))
            if is_report:
                checks[-1].print()
    counts = Counter(check.outcome for check in checks)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    if given.json:
        print(json.dumps([check.as_data() for check in checks], indent=2))
    elif given.badge:
        color = "red" if counts["failed"] else "brightgreen"
        badge = {"schemaVersion": 1, "label": "ttl check", "message": summary, "color": color}
        print(json.dumps(badge))
    else:
        print(f"\n{summary}")
    return int(bool(counts["failed"]))


def _components(name: str) -> list[InstalledComponent]:
    """Return the component of a name, or all of the distribution in "distribution/"."""
    if not name.endswith("/"):
        return [discovery.find(name)]
    wanted = canonicalize_name(name.removesuffix("/"))
    by_distribution: dict[str, list[InstalledComponent]] = {}
    for component in all_components():
        by_distribution.setdefault(canonicalize_name(component.distribution), []).append(component)
    if wanted not in by_distribution:
        raise UnknownNameError(
            f"no distribution {wanted!r} with components is installed. "
            f"{did_you_mean(wanted, by_distribution)}"
        )
    return by_distribution[wanted]


def _run(request: Mapping[str, Any]) -> Iterator[Row]:
    """Run checks in a process that has imported torch and pytest, and yield a row for each case."""
    ours = ("TTL_", "PYTEST_")  # what is set for runs of the user's own
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    # models are too small for more than one thread, and its plugins are not needed
    environment |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-P", "-m", "ttl_core.testing.installed", json.dumps(request)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        yield from map(json.loads, process.stdout)
        if process.wait():
            errors.seek(0)
            raise PluginError(
                f"the checks ended with status {process.returncode}:\n{errors.read()[-2000:]}"
            )


class _Check(NamedTuple):
    """A check of a component.

    Attributes:
        component: the component.
        name: the name of the check.
        cases: a row for each of its cases.
    """

    component: InstalledComponent
    name: str
    cases: Sequence[Row]

    @property
    def outcome(self) -> str:
        """The worst outcome of a case."""
        return max((str(case["outcome"]) for case in self.cases), key=_OUTCOMES.index)

    def reasons(self) -> dict[str, list[Row]]:
        """Return the cases that have not passed, by the reason."""
        found: dict[str, list[Row]] = {}
        for case in self.cases:
            if case["outcome"] != "passed":
                found.setdefault(case["reason"], []).append(case)
        return found

    def print(self) -> None:
        """Print the outcome, and the reasons."""
        n = len(self.cases)
        outcome = self.outcome.upper() if self.outcome == "failed" else self.outcome
        print(f"    {outcome:9}  {self.name}{f', {n} cases' if n > 1 else ''}")
        for reason, cases in self.reasons().items():
            names = [case["case"] for case in cases if case["case"]]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            where = f"{', '.join(names[:3])}{more}: " if names else ""
            print(indent(f"{where}{reason}", by=8))

    def as_data(self) -> Row:
        """Return it as data that JSON can hold."""
        return {
            "name": self.component.name,
            "distribution": self.component.distribution,
            "version": self.component.version,
            "check": self.name,
            "outcome": self.outcome,
            "n_cases": len(self.cases),
            "seconds": sum(case["seconds"] for case in self.cases),
            "problems": [case for cases in self.reasons().values() for case in cases],
        }
