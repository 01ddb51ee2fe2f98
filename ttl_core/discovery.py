"""Entry points to specs: which components are installed, found without importing them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ttl_core.errors import ConfigurationError, PluginError, UnknownNameError
from ttl_core.ordering import did_you_mean, is_name

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint

GROUP = "ttl.components"


@dataclass(frozen=True, repr=False)
class Spec:
    """Name an installed component and its configuration, without making it yet.

    Attributes:
        plugin: the entry point's name, or "distribution/name".
        name: the name it shall have in a list, or None for the usual one.
        config: its configuration.
    """

    plugin: str
    name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass(frozen=True)
class Offer:
    """Hold one entry point of the group, and who offers it."""

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})"


_offers: dict[str, list[Offer]] | None = None


def offers(scan_again: bool = False) -> dict[str, list[Offer]]:
    """Return what is installed, by name. The environment is scanned once a process.

    Args:
        scan_again: look again, because something may have just been installed.
    """
    global _offers
    if _offers is None or scan_again:
        from importlib_metadata import entry_points  # the only import of it, and a late one

        found: dict[str, list[Offer]] = {}
        for entry_point in entry_points(group=GROUP):
            dist = entry_point.dist
            assert dist is not None
            offer = Offer(entry_point.name, dist.name, dist.version, entry_point)
            found.setdefault(offer.name, []).append(offer)
        _offers = found
    return _offers


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
            if distribution in ("", offer.distribution)
            or canonicalize_name(distribution) == canonicalize_name(offer.distribution)
        ]

    found = matching(offers()) or matching(offers(scan_again=True))
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(f"{offer.distribution}/{name}" for offer in found)
        raise UnknownNameError(f"several distributions offer {name!r}. Write {choices}")
    installed = sorted(offers())
    raise UnknownNameError(
        f"no component {plugin!r} is installed. {did_you_mean(name, installed)}"
        f"Installed are: {', '.join(installed) or 'none'}. Searched was {sys.executable}"
    )


def make(spec: Spec) -> tuple[object, Offer]:
    """Import what a spec names and make the component that it describes.

    Returns:
        What the entry point returned, and who offers it.

    Raises:
        UnknownNameError: it is not installed.
        PluginError: it cannot be imported.
        ConfigurationError: it does not accept this configuration.
    """
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
        PluginError: it cannot be imported, or is nothing that makes components.
    """
    try:
        factory = offer.entry_point.load()
    except Exception as error:
        raise PluginError(
            f"component {offer} cannot be loaded: its entry point "
            f"{offer.entry_point.value!r} raised {type(error).__name__}: {error}. "
            f"Reinstall or update {offer.distribution}, or report it to its author"
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
    """Return the name and version of the distribution that offers components of this package."""
    package = cls.__module__.partition(".")[0]
    for several in offers().values():
        for offer in several:
            if offer.entry_point.module.partition(".")[0] == package:
                return offer.distribution, offer.version
    return None
