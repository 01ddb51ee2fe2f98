"""`ttl doctor`: what is wrong with the installation, with the fix."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ttl_core import discovery
from ttl_core.cli.commands import add_time_limit, packaged_commands
from ttl_core.cli.plugins import (
    Failures,
    all_components,
    find_failures,
    find_status,
    full_name,
)
from ttl_core.cli.text import indent
from ttl_core.discovery import InstalledComponent


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl doctor`."""
    parser.add_argument(
        "--against",
        metavar="FILE",
        type=Path,
        help="say only what differs from what ran: run.json, a checkpoint, or a folder of them, "
        "or a manifest",
    )
    add_time_limit(parser, "importing one component")
    parser.set_defaults(run=_diagnose)


def _diagnose(given: argparse.Namespace) -> int:
    if given.against:
        from ttl_core.cli.against import differences

        found = list(differences(given.against))
        end = f"difference{'s' * (len(found) != 1)} from what ran"
    else:
        found = list(dict.fromkeys(_problems(given.time_limit)))
        n = len(all_components())
        end = (
            f"problem{'s' * (len(found) != 1)} found, with {n} component{'s' * (n != 1)} installed"
        )
    for what, fix in found:
        print(f"{indent(what, by=0)}\n    {fix}")
    if found:
        print()
    print(f"{len(found) or 'no'} {end}")
    return int(bool(found))


def _problems(seconds: float) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the installation, each with the fix."""
    components = all_components()
    commands = packaged_commands()
    failures = find_failures([*components, *commands.values()], seconds)
    stale = discovery.stale_checkouts()
    for name, origin in commands.items():
        if failures.get(origin):
            yield f"command {origin} is broken: {failures[origin]}", _repair(origin)
        if "/" in name:
            yield f"command {origin} has the name of another one", f"write: ttl {name}"
    changed = {(each.distribution, name) for each in stale for name in each.changed}
    rest = [each for each in components if (each.distribution, each.name) not in changed]
    yield from _unusable(rest, failures)
    for place, reason in discovery.scan().broken.items():
        yield f"{place} cannot be read: {reason}", "reinstall that distribution, or remove it"
    for checkout in stale:
        yield (
            f"the editable checkout {checkout.path} of {checkout.distribution} has changed its "
            f"components since it was installed: {', '.join(sorted(checkout.changed))}",
            checkout.fix,
        )
    yield from _shadowed()
    yield from _unmet_requirements()
    yield from _leftovers()


def _unusable(
    components: Iterable[InstalledComponent], failures: Failures
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with components, once for those of a distribution that share it."""
    found: dict[tuple[str, str, str], list[InstalledComponent]] = {}
    for component in components:
        status, problem = find_status(component, failures)
        if problem is not None:
            found.setdefault((component.distribution, status, problem), []).append(component)
    for (distribution, status, problem), several in found.items():
        first = several[0]
        fixes = {
            "ambiguous": f"write use({full_name(first)!r}), or uninstall one of them",
            "incompatible": f"pip install --upgrade ttl-core {distribution}",
            "broken": _repair(first),
        }
        who = f"{', '.join(repr(each.name) for each in several)} ({distribution} {first.version})"
        yield f"{who} {'is' if len(several) == 1 else 'are'} {status}: {problem}", fixes[status]


def _repair(origin: InstalledComponent) -> str:
    """Return the fix of something that cannot be imported: what to do, and a line to paste."""
    advice, command = discovery.repair(origin)
    return f"{indent(advice).lstrip()}\n    {command}"


def _shadowed() -> Iterator[tuple[str, str]]:
    for dist in discovery.distributions():
        with contextlib.suppress(Exception):  # one that cannot be read is reported elsewhere
            is_ours = f"[{discovery.GROUP}]" in (dist.read_text("entry_points.txt") or "")
            if is_ours and discovery.is_shadowed(dist, dist.name):
                yield (
                    f"{dist.name} {dist.version} in {discovery.metadata_path(dist)} is shadowed by "
                    "another copy that is found first",
                    "uninstall it until pip finds no copy, and install it again",
                )


def _unmet_requirements() -> Iterator[tuple[str, str]]:
    for name in sorted({"ttl-core", *(component.distribution for component in all_components())}):
        dist = discovery.installed_distribution(name)
        try:
            lines = (dist and dist.requires) or []
        except UnicodeDecodeError as error:
            yield f"the requirements of {name} cannot be read: {error}", f"reinstall {name}"
            continue
        for line in lines:
            found = _unmet(line)
            if found == "unreadable":
                yield f"{name} has an unreadable requirement: {line}", "report it to its author"
            elif found is not None:
                yield f"{name} requires {line}, and installed is {found}", f"pip install '{line}'"


def _unmet(line: str) -> str | None:
    """Return what is installed instead of what a requirement wants, or None if it is met."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return "unreadable"
    if canonicalize_name(requirement.name) == "ttl-core":
        return None  # a component that it does not fit is reported as incompatible
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return None
    found = discovery.installed_distribution(requirement.name)
    try:
        version = found.version if found else "none"
    except (KeyError, OSError, UnicodeDecodeError):
        version = "none that can be read"
    if found and not version.startswith("none"):
        return None if requirement.specifier.contains(version, prereleases=True) else version
    return version


def _leftovers() -> Iterator[tuple[str, str]]:
    for place in dict.fromkeys(sys.path):
        folder = Path(place or ".")
        try:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            reason = error.strerror or error
            yield (
                f"{folder} is on the path of Python but cannot be read: {reason}",
                "make it readable",
            )
            continue
        for path in paths:
            is_half = path.suffix == ".dist-info" and path.is_dir()
            if path.name.startswith("~"):
                yield f"{path} is left over from an interrupted pip", f"remove {path}"
            elif str(path) in discovery.scan().broken:
                continue  # reported already
            elif is_half and not (path / "METADATA").exists():
                yield (
                    f"{path} has no METADATA: an uninstallation was interrupted",
                    f"remove {path}, and reinstall what you need of it",
                )
