"""`ttl plugins`: the installed components."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ttl_core import discovery
from ttl_core.arguments import is_component_name
from ttl_core.cli.text import cut, indent
from ttl_core.discovery import InstalledComponent
from ttl_core.hooks.explain import table


def list_plugins(as_json: bool, check: bool, seconds: float) -> int:
    """Print the installed components, and return the exit status.

    Args:
        as_json: whether to print JSON.
        check: whether to import each component, in a process of its own.
        seconds: how long one import may take.
    """
    components = all_components()
    failures = find_failures(components, seconds) if check else {}
    rows = [_row(component, failures) for component in components]
    if as_json:
        import json

        print(json.dumps(rows, indent=2))
    elif rows:
        shown = [[row[key] for key in ("name", "distribution", "version")] for row in rows]
        lines = [
            [*cells, row["status"], row["summary"]] for cells, row in zip(shown, rows, strict=True)
        ]
        head = ["NAME", "DISTRIBUTION", "VERSION", "STATUS", "SUMMARY"]
        print(cut(table([head, *lines])))
        for row in rows:
            if row["problem"]:
                problem = indent(row["problem"], break_long=True)
                print(f"\n{row['name']} ({row['distribution']})\n{problem}")
    else:
        print(f"no components are installed for {sys.executable}")
    if not as_json:
        _print_bundles()
    return int(check and any(row["status"] in ("broken", "incompatible") for row in rows))


def _print_bundles() -> None:
    """Print the installed bundles, if there are any."""
    bundles = discovery.installed_bundles()
    found = [each for name in sorted(bundles) for each in bundles[name]]
    lines = [[each.name, each.distribution, each.version, each.summary] for each in found]
    if lines:
        print("\n" + cut(table([["BUNDLE", "DISTRIBUTION", "VERSION", "SUMMARY"], *lines])))


def all_components() -> list[InstalledComponent]:
    """Return all installed components, sorted by name."""
    components = discovery.installed_components()
    return [component for name in sorted(components) for component in components[name]]


def find_failures(
    components: Sequence[InstalledComponent], seconds: float
) -> Mapping[str, str | None]:
    """Import those components that can be, and return how that failed by full name.

    Args:
        components: the components.
        seconds: how long one import may take.
    """
    from ttl_core.cli.importer import find_import_failures

    return find_import_failures([c for c in components if _is_importable(c)], seconds)


def _is_importable(component: InstalledComponent) -> bool:
    return is_component_name(component.name) and not discovery.find_incompatibility(component)


def _row(component: InstalledComponent, failures: Mapping[str, str | None]) -> dict[str, Any]:
    status, problem = find_status(component, failures)
    return {
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "status": status,
        "summary": component.summary,
        "problem": problem,
    }


def find_status(
    component: InstalledComponent, failures: Mapping[str, str | None]
) -> tuple[str, str | None]:
    """Return the status of a component, and the problem if there is one.

    Args:
        component: the component.
        failures: how importing components failed, by full name.
    """
    if not is_component_name(component.name):
        return (
            "broken",
            "its name is not small letters, digits and single dashes",
        )
    incompatibility = discovery.find_incompatibility(component)
    if incompatibility:
        return "incompatible", incompatibility
    failure = failures.get(full_name(component))
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
