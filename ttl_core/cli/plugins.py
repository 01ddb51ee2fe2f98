"""`ttl plugins`: the installed components."""

from __future__ import annotations

import sys
from typing import Any

from ttl_core import discovery
from ttl_core.arguments import is_component_name
from ttl_core.cli.text import cut, indent
from ttl_core.discovery import InstalledComponent
from ttl_core.hooks.explain import table


def list_plugins(as_json: bool, check: bool) -> int:
    """Print the installed components, and return the exit status.

    Args:
        as_json: whether to print JSON.
        check: whether to import each component, in a process of its own.
    """
    rows = [_row(component, check) for component in all_components()]
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
    return int(any(row["status"] in ("broken", "incompatible") for row in rows))


def all_components() -> list[InstalledComponent]:
    """Return all installed components, sorted by name."""
    components = discovery.installed_components()
    return [component for name in sorted(components) for component in components[name]]


def _row(component: InstalledComponent, check: bool) -> dict[str, Any]:
    status, problem = find_status(component, check)
    return {
        "name": component.name,
        "distribution": component.distribution,
        "version": component.version,
        "status": status,
        "summary": component.summary,
        "problem": problem,
    }


def find_status(component: InstalledComponent, check: bool) -> tuple[str, str | None]:
    """Return the status of a component, and the problem if there is one.

    Args:
        component: the component.
        check: whether to import it, in a process of its own.
    """
    if not is_component_name(component.name):
        return (
            "broken",
            "its name is not small letters, digits and single dashes",
        )
    incompatibility = discovery.find_incompatibility(component)
    if incompatibility:
        return "incompatible", incompatibility
    if check:
        failure = _import_failure(component)
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


def _import_failure(component: InstalledComponent) -> str | None:
    """Load a component in a process of its own, and return how that failed."""
    import subprocess

    program = (
        "import sys; from ttl_core import TTLError, discovery\n"
        "try: discovery.load(discovery.find(sys.argv[1]))\n"
        "except TTLError as error: sys.exit(str(error))\n"
        "print('loaded')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, full_name(component)], capture_output=True, text=True
    )
    if done.stdout.endswith("loaded\n"):
        return None
    said = done.stderr.strip().splitlines()
    if done.returncode < 0:
        return f"importing it killed the process with signal {-done.returncode}"
    return said[-1] if said else f"importing it ended the process with status {done.returncode}"
