"""The scan of installed distributions for components, which imports none of their code."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ttl_core.arguments import kebab_case

if TYPE_CHECKING:
    from importlib_metadata import Distribution, EntryPoint

GROUP = "ttl.components"
RENAMED = "ttl.renamed"
"""The group of former names of components: each with the new one, in which `-` is `_`."""

Kind = Literal["component", "bundle", "command", "conformance"]
KINDS: dict[str, Kind] = {
    GROUP: "component",
    "ttl.bundles": "bundle",
    "ttl.commands": "command",
    "ttl.conformance": "conformance",
}
"""What the entry points of each group declare."""


class InstalledComponent(NamedTuple):
    """An entry point of a component, or of another kind, with the distribution that declares it.

    Attributes:
        name: the name of the entry point.
        distribution: the name of the distribution.
        version: its version.
        summary: its summary.
        requires: its requirements, one line each.
        entry_point: the entry point.
        former_names: the names that it had in earlier versions.
    """

    name: str
    distribution: str
    version: str
    summary: str
    requires: tuple[str, ...]
    entry_point: EntryPoint
    former_names: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What it declares."""
        return KINDS[self.entry_point.group]

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})"


class Scan:
    """The result of one pass over the installed distributions.

    Attributes:
        entries: what is installed of each kind, by name.
        former: the installed components, by their former names.
        broken: the distributions that cannot be read, by path, with the reason.
    """

    def __init__(self) -> None:
        self.entries: dict[Kind, dict[str, list[InstalledComponent]]]
        self.entries = {kind: {} for kind in KINDS.values()}
        self.former: dict[str, list[InstalledComponent]] = {}
        self.broken: dict[str, str] = {}

    @property
    def components(self) -> dict[str, list[InstalledComponent]]:
        """The installed components, by name."""
        return self.entries["component"]

    def add(self, found: InstalledComponent) -> None:
        """Add an entry point, unless its distribution was found before."""
        several = self.entries[found.kind].setdefault(found.name, [])
        if found.distribution not in {other.distribution for other in several}:
            several.append(found)
            for name in found.former_names:
                self.former.setdefault(name, []).append(found)

    @functools.cached_property
    def core_version(self) -> str | None:
        """The version of the installed ttl-core; None if it runs from its source."""
        core = installed_distribution("ttl-core")
        return None if core is None else str(core.version)


_newest_scan: Scan | None = None
_lock = threading.Lock()


def scan(again: bool = False) -> Scan:
    """Return the installed components, found once a process, without importing their code.

    Args:
        again: whether to scan once more, because something may have just been installed.
    """
    global _newest_scan
    with _lock:
        if _newest_scan is None or again:
            if again:  # so that Python sees folders that were created since
                importlib.invalidate_caches()
            _newest_scan = _scan()
        return _newest_scan


def _scan() -> Scan:
    result = Scan()
    for dist in distributions():
        try:
            for found in _declared_by(dist):
                result.add(found)
        except Exception as error:  # whatever is wrong with it, the others have to be found
            result.broken[str(metadata_path(dist))] = f"{type(error).__name__}: {error}"
    return result


def distributions() -> Iterable[Distribution]:
    """Return all installed distributions, shadowed ones too."""
    from importlib_metadata import Distribution

    found: Iterable[Distribution] = Distribution.discover()  # whose type some versions do not say
    return found


def installed_distribution(name: str) -> Distribution | None:
    """Return the distribution of a name that Python finds first, or None."""
    from importlib_metadata import Distribution, PackageNotFoundError

    try:
        found: Distribution = Distribution.from_name(name)
    except PackageNotFoundError:
        return None
    except UnicodeDecodeError:  # in versions that prefer those with readable metadata
        return next(iter(Distribution.discover(name=name)), None)
    return found


def _declared_by(dist: Distribution) -> Iterator[InstalledComponent]:
    # Most distributions declare none; this tells without parsing their metadata.
    if "[ttl." not in (dist.read_text("entry_points.txt") or ""):
        return
    metadata = dist.metadata  # parsed again by each attribute of a distribution
    name, version = metadata["Name"], metadata["Version"]
    # pip renames what it is about to remove so, and leaves it behind when it is interrupted
    if metadata_path(dist).name.startswith("~") or not _is_first(dist, name):
        return
    requires = tuple(metadata.get_all("Requires-Dist") or ())
    about = name, version, metadata.get("Summary") or "", requires
    former: dict[str, list[str]] = {}
    for renamed in dist.entry_points.select(group=RENAMED):
        former.setdefault(kebab_case(renamed.value), []).append(renamed.name)
    for entry_point in dist.entry_points:
        if entry_point.group in KINDS:
            names = former.get(entry_point.name, ()) if entry_point.group == GROUP else ()
            yield InstalledComponent(entry_point.name, *about, entry_point, tuple(names))


def is_same_name(distribution: str, other: str) -> bool:
    """Return whether two names of distributions are spellings of one."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(distribution) == canonicalize_name(other)


def metadata_path(dist: Distribution) -> Path:
    """Return the directory of the metadata of a distribution."""
    return Path(str(getattr(dist, "_path", None) or dist.locate_file("")))


def is_shadowed(dist: Distribution, name: str) -> bool:
    """Return whether Python finds another installation of a distribution, of this name, first."""
    # an editable installation by setuptools leaves an .egg-info in the sources, which is no mistake
    return metadata_path(dist).suffix != ".egg-info" and not _is_first(dist, name)


def _is_first(dist: Distribution, name: str) -> bool:
    first = installed_distribution(name)
    return first is None or metadata_path(first).resolve() == metadata_path(dist).resolve()


def installed_components() -> dict[str, list[InstalledComponent]]:
    """Return the installed components, by name."""
    return scan().components


def installed_bundles() -> dict[str, list[InstalledComponent]]:
    """Return the installed bundles, by name."""
    return scan().entries["bundle"]
