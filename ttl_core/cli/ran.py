"""What ran, as the record of a run, a checkpoint or a manifest says, and what that needs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ttl_core import discovery
from ttl_core.errors import ArgumentError

_FILES = ("run.json", "manifest.json")


class Ran(NamedTuple):
    """What ran.

    Attributes:
        components: the components, as `loop.manifest()` lists them.
        versions: the versions of distributions, by normalized name.
        python: the version of Python, where that is known.
    """

    components: list[dict[str, Any]]
    versions: dict[str, str]
    python: str | None

    def needed(self) -> list[str]:
        """Return the normalized names of the distributions that it needs, as they are installed."""
        ours = {canonicalize_name(each["distribution"] or "ttl-core") for each in self.components}
        return _with_requirements({"ttl-core", *ours})


def read_ran(path: Path) -> Ran:
    """Read what ran from a file, or from the one in a folder.

    Args:
        path: `run.json` of ttl-run, `manifest.json` of a checkpoint, what `loop.manifest()`
            returned as JSON, the folder of one of them, or one of checkpoints, of which the newest
            counts.

    Raises:
        ArgumentError: there is none, or it is something else.
    """
    path = next((path / name for name in _FILES if (path / name).is_file()), path)
    if path.is_dir():
        path = max(
            path.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime, default=path
        )
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from None
    about = content if isinstance(content, dict) else {"manifest": content}
    try:
        components = list(about["manifest"] if "manifest" in about else about["components"])
        versions = {**about.get("versions", {})}
        for component in components:
            if component["distribution"] is not None:
                versions[component["distribution"]] = component["version"]
        if "torch" in about.get("environment", {}):  # of a checkpoint
            versions["torch"] = about["environment"]["torch"]
        python = about.get("python", {}).get("version")
        return Ran(components, {canonicalize_name(n): str(v) for n, v in versions.items()}, python)
    except (AttributeError, KeyError, TypeError) as error:
        raise _unreadable(path, f"it holds no manifest ({type(error).__name__}: {error})") from None


def requirement(name: str, version: str) -> str:
    """Return the requirement of a version, as indexes have it: without a local part, as of +cpu.

    Args:
        name: the name of the distribution.
        version: the version that is installed, or was.

    Example:
        >>> requirement("torch", "2.13.0+cpu")
        'torch==2.13.0'
    """
    return f"{name}=={version.partition('+')[0]}"


def _unreadable(path: Path, reason: str) -> ArgumentError:
    return ArgumentError(
        f"{path} cannot be read: {reason}. Give run.json, which the component 'run-folder' "
        "writes, manifest.json of a checkpoint, a folder with one of them or with checkpoints, or "
        "what loop.manifest() returns as JSON"
    )


def _with_requirements(names: Iterable[str]) -> list[str]:
    """Return the names of distributions, and of those that they require in turn."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, frozenset[str]()) for name in names]
    while waiting:
        name, extras = each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += [
                (canonicalize_name(requirement.name), frozenset(requirement.extras))
                for requirement in _requirements(name)
                if requirement.marker is None
                or any(requirement.marker.evaluate({"extra": extra}) for extra in {"", *extras})
            ]
    return sorted({name for name, _ in found})


def _requirements(name: str) -> list[Requirement]:
    """Return what an installed distribution requires; nothing where that cannot be read."""
    try:
        dist = discovery.installed_distribution(name)
        return [Requirement(line) for line in (dist and dist.requires) or ()]
    except (InvalidRequirement, UnicodeDecodeError, KeyError, OSError):
        return []  # which `ttl doctor` says
