"""Entry points to specs: which components are installed, found without importing them."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ttl_core.arguments import did_you_mean
from ttl_core.errors import ConfigurationError, PluginError, UnknownNameError
from ttl_core.ordering import is_name

if TYPE_CHECKING:
    import inspect

    from importlib_metadata import Distribution, EntryPoint

GROUP = "ttl.components"


class Spec:
    """Name an installed component and its configuration, without making it yet.

    Attributes:
        plugin: the entry point's name, or "distribution/name".
        name: the name it shall have in a list, or None for the usual one.
        config: its configuration.
    """

    def __init__(self, plugin: str, name: str | None, config: Mapping[str, Any]) -> None:
        self.plugin = plugin
        self.name = name
        self.config = config

    def __repr__(self) -> str:
        name = {} if self.name is None else {"name": self.name}
        given = "".join(f", {key}={value!r}" for key, value in {**name, **self.config}.items())
        return f"use({self.plugin!r}{given})"


def use(plugin: str, /, *, name: str | None = None, **config: Any) -> Spec:
    """Name an installed component to put into a list, with its configuration.

    Nothing is looked up or imported before the spec enters a list.

    Args:
        plugin: the component's name, as installed; "distribution/name" picks one of several.
        name: a name of its own in the list.
        **config: its configuration.

    Returns:
        A spec. A bare string in a list means `use(string)`.

    Raises:
        UnknownNameError: `plugin` or `name` cannot be the name of a component.

    Example:
        >>> use("checkpoint", directory="runs/a", keep=3)
        use('checkpoint', directory='runs/a', keep=3)
    """
    if not isinstance(plugin, str):
        raise UnknownNameError(
            f"use() takes the name of an installed component, not {plugin!r}. "
            "Put components that you make yourself into the list as they are."
        )
    for text in (plugin.rpartition("/")[2], name):
        if text is not None and not (isinstance(text, str) and is_name(text)):
            raise UnknownNameError(
                f"{text!r} cannot be a component's name: names are small letters, digits and "
                "single dashes, as in 'grad-clip'"
            )
    return Spec(plugin, name, config)


class Offer(NamedTuple):
    """Hold one entry point of the group, and who offers it."""

    name: str
    distribution: str
    version: str
    summary: str
    requires: tuple[str, ...]
    entry_point: EntryPoint

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})"

    def incompatibility(self) -> str | None:
        """Say which version of ttl-core it requires, if that is not the one installed."""
        from packaging.requirements import InvalidRequirement, Requirement
        from packaging.utils import canonicalize_name

        core = installed("ttl-core")
        try:
            requirements = [Requirement(line) for line in self.requires]
        except InvalidRequirement as error:
            return f"has an unreadable requirement: {error}"
        for wanted in requirements:
            if core is None or canonicalize_name(wanted.name) != "ttl-core":
                continue  # without metadata the core runs from its source, of whatever version
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            if not wanted.specifier.contains(core.version, prereleases=True):
                return (
                    f"requires ttl-core{wanted.specifier}, and installed is ttl-core {core.version}"
                )
        return None


class Scan:
    """Hold what one look at the installed distributions has found.

    Attributes:
        offers: the entry points of the group, by name.
        broken: distributions that cannot be read, and why.
    """

    def __init__(self) -> None:
        self.offers: dict[str, list[Offer]] = {}
        self.broken: dict[str, str] = {}


_newest_scan: Scan | None = None


def scan(again: bool = False) -> Scan:
    """Look at what is installed, once a process. Imports nobody's code.

    Args:
        again: look once more, because something may have just been installed.
    """
    global _newest_scan
    if _newest_scan is None or again:
        _newest_scan = Scan()
        for dist in distributions():
            try:
                for offer in _offers_of(dist):
                    several = _newest_scan.offers.setdefault(offer.name, [])
                    if offer.distribution not in {other.distribution for other in several}:
                        several.append(offer)
            except Exception as error:  # whatever is wrong with it, the others are to be found
                _newest_scan.broken[str(place_of(dist))] = f"{type(error).__name__}: {error}"
    return _newest_scan


def distributions() -> Iterable[Distribution]:
    """Return all installed distributions, shadowed ones too."""
    from importlib_metadata import Distribution

    return cast("Iterable[Distribution]", Distribution.discover())


def installed(name: str) -> Distribution | None:
    """Return the distribution of a name that Python finds first, or None."""
    from importlib_metadata import Distribution, PackageNotFoundError

    try:
        return cast("Distribution", Distribution.from_name(name))
    except PackageNotFoundError:
        return None


def _offers_of(dist: Distribution) -> Iterator[Offer]:
    # Most distributions offer nothing of ours; this tells without parsing anything of theirs.
    if f"[{GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
        return
    metadata = dist.metadata  # parsed anew by each attribute of a distribution
    name, version = metadata["Name"], metadata["Version"]
    # pip renames what it is about to remove so, and leaves it behind when it is interrupted
    if place_of(dist).name.startswith("~") or is_shadowed(dist, name):
        return
    requires = tuple(metadata.get_all("Requires-Dist") or ())
    for entry_point in dist.entry_points.select(group=GROUP):
        summary = metadata.get("Summary") or ""
        yield Offer(entry_point.name, name, version, summary, requires, entry_point)


def place_of(dist: Distribution) -> Path:
    """Return where the metadata of a distribution lie."""
    return Path(str(getattr(dist, "_path", None) or dist.locate_file("")))


def is_shadowed(dist: Distribution, name: str) -> bool:
    """Tell whether Python would find another copy of a distribution, of this name, first."""
    first = installed(name)
    if first is None or place_of(dist).suffix == ".egg-info":
        return False  # an editable installation by setuptools leaves one in the sources
    return place_of(first).resolve() != place_of(dist).resolve()


def offers() -> dict[str, list[Offer]]:
    """Return what is installed, by name."""
    return scan().offers


def find(plugin: str) -> Offer:
    """Return who offers a component.

    Args:
        plugin: its name, or "distribution/name".

    Raises:
        UnknownNameError: nobody offers it, or several do.
    """
    from packaging.utils import canonicalize_name

    distribution, _, name = plugin.rpartition("/")

    def matching(installed: dict[str, list[Offer]]) -> list[Offer]:
        return [
            offer
            for offer in installed.get(name, [])
            if not distribution
            or canonicalize_name(distribution) == canonicalize_name(offer.distribution)
        ]

    found = matching(scan().offers) or matching(scan(again=True).offers)
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(repr(f"{offer.distribution}/{name}") for offer in found)
        raise UnknownNameError(
            f"several distributions offer {name!r}: {', '.join(map(str, found))}. Write {choices}"
        )
    raise UnknownNameError(_why_unknown(plugin, name))


def _why_unknown(plugin: str, name: str) -> str:
    installed = sorted(offers())
    text = f"no component {plugin!r} is installed. {did_you_mean(name, installed)}"
    others = [offer.distribution for offer in offers().get(name, [])]
    if others:
        text += f"{name!r} is offered by {', '.join(others)}. "
    for checkout in stale_checkouts():
        if name in checkout.undeclared:
            return (
                f"{text}The editable checkout {checkout.path} of {checkout.distribution} declares "
                f"it, but was installed before it did. Run: {checkout.mend}"
            )
    text += f"Installed are: {', '.join(installed) or 'none'}. Searched was {sys.executable}"
    for place, reason in scan().broken.items():
        text += f"\nA distribution in {place} could not be read: {reason}"
    return text


class Checkout(NamedTuple):
    """Hold how an editable checkout differs from what was installed of it.

    Attributes:
        distribution: its name.
        path: where it lies.
        undeclared: names that it declares and the installation does not know.
        gone: names that the installation knows and it does not declare any more.
    """

    distribution: str
    path: str
    undeclared: frozenset[str]
    gone: frozenset[str]

    @property
    def mend(self) -> str:
        """The command that installs it anew."""
        return f"pip install -e {shlex.quote(self.path)}"


def stale_checkouts() -> list[Checkout]:
    """Return the editable checkouts that declare other components than when installed."""
    import json
    import tomllib
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    found = []
    for dist in distributions():
        try:
            origin = json.loads(dist.read_text("direct_url.json") or "{}")
            if not origin.get("dir_info", {}).get("editable"):
                continue
            path = Path(url2pathname(urlsplit(origin["url"]).path))
            project = tomllib.loads((path / "pyproject.toml").read_text("utf-8"))["project"]
            if "entry-points" in project.get("dynamic", ()):
                continue  # it does not say there which ones
            declared = set(project.get("entry-points", {}).get(GROUP, {}))
            known = {entry_point.name for entry_point in dist.entry_points.select(group=GROUP)}
            if declared != known:
                checkout = Checkout(
                    dist.name, str(path), frozenset(declared - known), frozenset(known - declared)
                )
                found.append(checkout)
        except Exception:  # a checkout that cannot be read says nothing
            continue
    return found


def make(spec: Spec) -> tuple[object, Offer]:
    """Import what a spec names and make the component that it describes.

    Returns:
        What the entry point returned, and who offers it.

    Raises:
        UnknownNameError: it is not installed.
        PluginError: it cannot be imported.
        ConfigurationError: it does not accept this configuration.
    """
    import inspect

    offer = find(spec.plugin)
    factory = load(offer)
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables have none; then calling it has to tell
        signature = None
    if signature is not None:
        try:
            signature.bind(**spec.config)
        except TypeError as error:
            raise ConfigurationError(_wrong_configuration(spec, offer, signature, error)) from None
    try:
        return factory(**spec.config), offer
    except Exception as error:
        error.add_note(f"ttl: raised while making component {offer} from {spec!r}")
        raise


def load(offer: Offer) -> Callable[..., object]:
    """Import what an entry point names.

    Raises:
        PluginError: it needs another version of the core, cannot be imported, or is nothing that
            makes components.
    """
    incompatibility = offer.incompatibility()
    if incompatibility:
        raise PluginError(
            f"component {offer} cannot be loaded: {offer.distribution} {incompatibility}. "
            f"Run: pip install --upgrade ttl-core {offer.distribution}"
        )
    try:
        factory = offer.entry_point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"component {offer} cannot be loaded: importing its entry point "
            f"{offer.entry_point.value!r} raised {type(error).__name__}: {error}. Run: "
            f"pip install --upgrade --force-reinstall {offer.distribution}; if that does not "
            "help, report it to its author"
        ) from error
    if not callable(factory):
        raise PluginError(
            f"component {offer} cannot be made: its entry point {offer.entry_point.value!r} is "
            f"{factory!r}, no class or function. Report it to the author of {offer.distribution}"
        )
    return factory  # type: ignore[no-any-return]


def _wrong_configuration(
    spec: Spec, offer: Offer, signature: inspect.Signature, error: TypeError
) -> str:
    accepted = [
        str(parameter.replace(annotation=parameter.empty))
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.POSITIONAL_ONLY
    ]
    unknown = [key for key in spec.config if key not in signature.parameters]
    hint = did_you_mean(unknown[0], signature.parameters) if unknown else ""
    return (
        f"component {offer} does not accept {spec!r}: {error}. {hint}"
        f"It accepts: {', '.join(accepted) or 'nothing'}"
    )


def who_brings(point: str) -> str:
    """Say, for an error, which installed component brings a callback point, by its prefix."""
    owners = [
        offer
        for name, several in offers().items()
        for offer in several
        if point.startswith(f"{name.replace('-', '_')}_")
    ]
    if owners:
        names = " or ".join(str(offer) for offer in owners)
        return f"Its name says that it belongs to {names}: put that into the list. "
    return "Nothing that is installed has a name with which it begins. "


def distribution_of(cls: type) -> tuple[str, str] | None:
    """Return the name and version of the distribution whose components live nearest to a class."""
    nearest: dict[int, set[tuple[str, str]]] = {}
    for several in offers().values():
        for offer in several:
            module = offer.entry_point.value.partition(":")[0].split(".")
            pairs = zip(module, cls.__module__.split("."), strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            nearest.setdefault(shared, set()).add((offer.distribution, offer.version))
    shared = max(nearest, default=0)
    return nearest[shared].pop() if shared and len(nearest[shared]) == 1 else None
