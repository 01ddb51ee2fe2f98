"""What is wrong with an installation: unknown names, incompatible versions, stale checkouts."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ttl_core.arguments import did_you_mean
from ttl_core.discovery.first_party import DISTRIBUTIONS
from ttl_core.discovery.scanning import (
    GROUP,
    InstalledComponent,
    Kind,
    distributions,
    installed_bundles,
    installed_components,
    installed_distribution,
    scan,
)

if TYPE_CHECKING:
    from importlib_metadata import Distribution


def find_incompatibility(component: InstalledComponent) -> str | None:
    """Return why a component does not fit the installed ttl-core, or None if it does."""
    return _find_incompatibility(component.requires, scan().core_version)


@functools.lru_cache(maxsize=256)  # the parser of packaging takes most of the time of `ttl plugins`
def _find_incompatibility(requires: tuple[str, ...], core_version: str | None) -> str | None:
    from packaging.requirements import InvalidRequirement, Requirement

    for line in requires:
        if not _IS_OF_CORE(line):
            continue
        try:
            wanted = Requirement(line)
        except InvalidRequirement as error:
            return f"has an unreadable requirement: {error}"
        if core_version is None or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue  # without metadata the core runs from its source, of whatever version
        if not wanted.specifier.contains(core_version, prereleases=True):
            return f"requires ttl-core{wanted.specifier}, and installed is ttl-core {core_version}"
    return None


_IS_OF_CORE = re.compile(r"\s*ttl[-_.]+core(?![\w.-])", re.IGNORECASE).match


_MANY = 20  # names, which are too many to list


def explain_unknown(plugin: str, name: str, kind: Kind = "component") -> str:
    """Return the error text for a name that is not installed, with the most likely reason."""
    known = scan().entries[kind]
    others = {"component": installed_bundles(), "bundle": installed_components()}.get(kind, {})
    installed = sorted(known)
    hint = did_you_mean(name, installed)
    if kind == "component" and name in DISTRIBUTIONS:
        package = DISTRIBUTIONS[name]
        hint = f"It is in {package}: run `pip install {package}`. "
    text = f"no {kind} {plugin!r} is installed. {hint}"
    if name in known:
        text += f"{name!r} is offered by {', '.join(each.distribution for each in known[name])}. "
    elif name in others:
        write = f"*bundle({plugin!r})" if kind == "component" else f"use({plugin!r})"
        text += f"There is a {others[name][0].kind} of that name: write {write}. "
    for checkout in stale_checkouts():
        if name in checkout.undeclared:
            return (
                f"{text}The editable checkout {checkout.path} of {checkout.distribution} declares "
                f"it, but was installed before it did. Run: {checkout.fix}"
            )
    if len(installed) > _MANY:
        text += f"`ttl plugins` lists the {len(installed)} that are. "
    else:
        text += f"Installed: {', '.join(installed) or 'none'}. "
    text += f"Searched: {sys.executable}"
    for place, reason in scan().broken.items():
        text += f"\nA distribution in {place} could not be read: {reason}"
    return text


class Checkout(NamedTuple):
    """An editable checkout that declares other components than it did when it was installed.

    Attributes:
        distribution: the name of its distribution.
        path: its directory.
        undeclared: names that it declares and the installation does not know.
        gone: names that the installation knows and it does not declare any more.
        moved: names for which it declares another object than the installation knows.
    """

    distribution: str
    path: str
    undeclared: frozenset[str]
    gone: frozenset[str]
    moved: frozenset[str]

    @property
    def changed(self) -> frozenset[str]:
        """All names that differ."""
        return self.undeclared | self.gone | self.moved

    @property
    def fix(self) -> str:
        """The command that installs it again."""
        return _install_again(self.path)


def _install_again(path: str) -> str:
    return f"pip install -e {shlex.quote(path)}"


def repair(origin: InstalledComponent) -> tuple[str, str]:
    """Return what to do about a distribution that cannot be imported, and the command to run.

    Args:
        origin: one of its components.
    """
    dist = installed_distribution(origin.distribution)
    if dist is None or not is_editable(dist):
        return (
            "Run this, and if it does not help, report it to its author:",
            f"pip install --upgrade --force-reinstall {origin.distribution}",
        )
    path = str(_path_of_checkout(dist))
    if any(origin.name in each.changed for each in stale_checkouts() if each.path == path):
        return "Its pyproject.toml has changed since it was installed. Run:", _install_again(path)
    return (
        "It is an editable checkout: correct it there, and if its pyproject.toml changes, run:",
        _install_again(path),
    )


def is_editable(dist: Distribution) -> bool:
    """Return whether a distribution is an editable checkout."""
    return bool(_origin(dist).get("dir_info", {}).get("editable"))


def _path_of_checkout(dist: Distribution) -> Path:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    return Path(url2pathname(urlsplit(_origin(dist)["url"]).path))


def _origin(dist: Distribution) -> dict[str, Any]:
    """Return where a distribution was installed from, as installers record it."""
    import json

    return dict(json.loads(dist.read_text("direct_url.json") or "{}"))


def stale_checkouts() -> list[Checkout]:
    """Return the editable checkouts that declare other components than when installed."""
    import tomllib

    found = []
    for dist in distributions():
        try:
            if not is_editable(dist):
                continue
            path = _path_of_checkout(dist)
            project = tomllib.loads((path / "pyproject.toml").read_text("utf-8"))["project"]
            if "entry-points" in project.get("dynamic", ()):
                continue  # it does not say there which ones
            declared = project.get("entry-points", {}).get(GROUP, {})
            known = {each.name: each.value for each in dist.entry_points.select(group=GROUP)}
            checkout = Checkout(
                dist.name,
                str(path),
                frozenset(declared.keys() - known.keys()),
                frozenset(known.keys() - declared.keys()),
                frozenset(n for n in declared.keys() & known.keys() if declared[n] != known[n]),
            )
            if checkout.changed:
                found.append(checkout)
        except Exception:  # one that cannot be read tells nothing
            continue
    return found
