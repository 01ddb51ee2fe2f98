"""`ttl plugins`: the installed components."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ttl_core import discovery
from ttl_core.arguments import is_component_name
from ttl_core.cli.commands import add_time_limit
from ttl_core.cli.text import cut, indent
from ttl_core.discovery import InstalledComponent
from ttl_core.discovery.summaries import summary_of

Failures = Mapping[InstalledComponent, str | None]
"""How importing components failed; None for those where it did not."""


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl plugins`."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--check", action="store_true", help="import each, in another process")
    add_time_limit(parser, "importing one component")
    parser.set_defaults(run=_list)


def _list(given: argparse.Namespace) -> int:
    components = all_components()
    failures = find_failures(components, given.time_limit) if given.check else {}
    rows = [_row(component, failures) for component in components]
    if given.json:
        import json

        print(json.dumps(rows, indent=2))
    elif rows:
        keys = ["name", "distribution", "version", "status", "summary"]
        if all(row["status"] == "available" for row in rows):
            keys.remove("status")  # leaves room for summaries
        lines = [[row[key] for key in keys] for row in rows]
        print(_listing([[key.upper() for key in keys], *lines]))
        for row in rows:
            if row["problem"]:
                problem = indent(row["problem"], break_long=True)
                print(f"\n{row['name']} ({row['distribution']})\n{problem}")
    else:
        print(f"no components are installed for {sys.executable}")
    if not given.json:
        _print_bundles()
    return int(given.check and any(row["status"] in ("broken", "incompatible") for row in rows))


def _print_bundles() -> None:
    """Print the installed bundles, if there are any."""
    bundles = discovery.installed_bundles()
    found = [each for name in sorted(bundles) for each in bundles[name]]
    lines = [[each.name, each.distribution, each.version, summary_of(each)] for each in found]
    if lines:
        print("\n" + _listing([["BUNDLE", "DISTRIBUTION", "VERSION", "SUMMARY"], *lines]))


def _listing(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table that fits into the terminal, with the summary as its last column.

    That of a row in which another cell is long is below it, as its column would be too narrow.
    """
    narrow = [row for row in rows if not _is_wide(row[:-1])]
    widths = [max(map(len, column)) for column in zip(*narrow, strict=True)][:-1]
    lines = []
    for *cells, summary in rows:
        before = "".join(f"{c.ljust(width)}  " for c, width in zip(cells, widths, strict=True))
        if _is_wide(cells):
            lines.append(before)
            before = " " * sum(width + 2 for width in widths)
        lines.append(before + summary)
    return cut("\n".join(line.rstrip() for line in lines))


def _is_wide(cells: Sequence[str]) -> bool:
    return any(len(cell) > _WIDEST for cell in cells)


_WIDEST = 24
"""The width of a name, a distribution or a version that leaves room for a summary beside them."""


def all_components() -> list[InstalledComponent]:
    """Return all installed components, sorted by name."""
    components = discovery.installed_components()
    return [component for name in sorted(components) for component in components[name]]


def find_failures(components: Sequence[InstalledComponent], seconds: float) -> Failures:
    """Import those components that can be, in other processes, and return how that failed.

    Args:
        components: the components.
        seconds: how long one import may take.
    """
    from ttl_core.cli.importer import import_all

    found = import_all([component for component in components if is_importable(component)], seconds)
    return {component: imported.failure for component, imported in found.items()}


def is_importable(component: InstalledComponent) -> bool:
    """Return whether a component is not known to be broken or incompatible by its metadata."""
    return is_component_name(component.name) and not discovery.find_incompatibility(component)


def _row(component: InstalledComponent, failures: Failures) -> dict[str, Any]:
    status, problem = find_status(component, failures)
    return {
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "status": status,
        "summary": summary_of(component),
        "problem": problem,
    }


def find_status(component: InstalledComponent, failures: Failures) -> tuple[str, str | None]:
    """Return the status of a component, and the problem if there is one.

    Args:
        component: the component.
        failures: how importing components failed.
    """
    if not is_component_name(component.name):
        return (
            "broken",
            "its name is not small letters, digits and single dashes",
        )
    incompatibility = discovery.find_incompatibility(component)
    if incompatibility:
        return "incompatible", incompatibility
    failure = failures.get(component)
    if failure:
        return "broken", failure
    several = discovery.installed_components()[component.name]
    others = [other.distribution for other in several if other is not component]
    if others:
        return "ambiguous", f"{', '.join(others)} offers it too: use {full_name(component)!r}"
    return "available", None


def full_name(component: InstalledComponent) -> str:
    """Return the name of a component with that of its distribution."""
    return f"{component.distribution}/{component.name}"
