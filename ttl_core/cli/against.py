"""`ttl doctor --against`: what differs from what ran."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import canonicalize_name

from ttl_core import discovery
from ttl_core.cli.plugins import all_components
from ttl_core.cli.ran import read_ran, requirement


def differences(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what is installed in place of what ran, each with the fix.

    Args:
        path: what says what ran, see `read_ran`.

    Raises:
        ArgumentError: it cannot be read.
    """
    ran = read_ran(path)
    python = platform.python_version()
    if ran.python not in (None, python):
        yield f"Python {ran.python} ran, and this is Python {python}", f"use Python {ran.python}"
    installed = {name: discovery.installed_distribution(name) for name in ran.versions}
    now = {name: dist.version if dist else "none" for name, dist in installed.items()}
    changed = [name for name, version in ran.versions.items() if now[name] != version]
    needed = set(ran.needed())
    for name in changed:
        if name in needed:
            line = requirement(name, ran.versions[name])
            yield (
                f"{name}=={ran.versions[name]} ran, and installed is {now[name]}",
                f"pip install '{line}'",
            )
    offered = {(canonicalize_name(each.distribution), each.name) for each in all_components()}
    for component in ran.components:
        plugin, name = component.get("plugin"), canonicalize_name(component["distribution"] or "")
        if plugin and installed.get(name) and (name, plugin) not in offered:
            version = component["version"]
            yield (
                f"component {plugin!r} of {name} {version} ran, and {name} {now[name]} has none "
                "of that name",
                f"pip install '{requirement(name, version)}'",
            )
    others = [f"{name}=={ran.versions[name]}" for name in changed if name not in needed]
    if others:
        what = "distributions that no component needs were there in other versions"
        yield f"{what}: {', '.join(others)}", "install those that your own code uses"
