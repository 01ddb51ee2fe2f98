"""From names to components: finding, importing and creating what a spec names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ttl_core.arguments import did_you_mean
from ttl_core.discovery.diagnosis import explain_unknown, find_incompatibility
from ttl_core.discovery.scanning import (
    InstalledComponent,
    Kind,
    Scan,
    installed_components,
    scan,
)
from ttl_core.discovery.spec import Spec
from ttl_core.errors import ConfigurationError, PluginError, UnknownNameError

if TYPE_CHECKING:
    import inspect

Factory = Callable[..., object]
"""What an entry point names: a component class, or a function that returns a component."""


class Created(NamedTuple):
    """A component that was created from a spec.

    Attributes:
        component: what the factory returned.
        factory: the factory.
        installed: where the factory is installed.
    """

    component: object
    factory: Factory
    installed: InstalledComponent


def find(plugin: str, kind: Kind = "component") -> InstalledComponent:
    """Return the installed component of a name.

    Args:
        plugin: its name, or "distribution/name".
        kind: what else it may be the name of.

    Raises:
        UnknownNameError: it is not installed, or several distributions declare it.
    """
    from packaging.utils import canonicalize_name

    distribution, _, name = plugin.rpartition("/")

    def matching(scanned: Scan) -> list[InstalledComponent]:
        return [
            component
            for component in scanned.entries[kind].get(name, [])
            if not distribution
            or canonicalize_name(distribution) == canonicalize_name(component.distribution)
        ]

    found = matching(scan()) or matching(scan(again=True))
    if len(found) == 1:
        return found[0]
    if found:
        choices = " or ".join(repr(f"{component.distribution}/{name}") for component in found)
        raise UnknownNameError(
            f"several distributions offer {name!r}: {', '.join(map(str, found))}. Write {choices}"
        )
    raise UnknownNameError(explain_unknown(plugin, name))


def load(origin: InstalledComponent) -> Factory:
    """Import what an entry point names.

    Args:
        origin: the installed component, or something of another kind.

    Raises:
        PluginError: it needs another version of the core, cannot be imported, or cannot be called.
    """
    what, value = f"{origin.kind} {origin}", origin.entry_point.value
    incompatibility = find_incompatibility(origin)
    if incompatibility:
        raise PluginError(
            f"{what} cannot be loaded: {origin.distribution} {incompatibility}. "
            f"Run: pip install --upgrade ttl-core {origin.distribution}"
        )
    try:
        factory = origin.entry_point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{what} cannot be loaded: importing its entry point "
            f"{value!r} raised {type(error).__name__}: {error}. Run: "
            f"pip install --upgrade --force-reinstall {origin.distribution}; if that does not "
            "help, report it to its author"
        ) from error
    if not callable(factory):
        raise PluginError(
            f"{what} cannot be created: its entry point {value!r} "
            f"is {factory!r}, not a class or function. Report it to the author of "
            f"{origin.distribution}"
        )
    return factory  # type: ignore[no-any-return]


def create(spec: Spec) -> Created:
    """Import what a spec names and create the component.

    Args:
        spec: the spec.

    Raises:
        UnknownNameError: it is not installed.
        PluginError: it cannot be imported.
        ConfigurationError: it does not accept this configuration.
    """
    import inspect

    origin = find(spec.plugin)
    factory = load(origin)
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables have none; calling them is the only check
        signature = None
    if signature is not None:
        try:
            signature.bind(**spec.config)
        except TypeError as error:
            text = _describe_configuration(spec, origin, signature, error)
            raise ConfigurationError(text) from None
    try:
        return Created(factory(**spec.config), factory, origin)
    except Exception as error:
        error.add_note(f"ttl: raised while creating component {origin} from {spec!r}")
        raise


def _describe_configuration(
    spec: Spec, origin: InstalledComponent, signature: inspect.Signature, error: TypeError
) -> str:
    accepted = [
        str(parameter.replace(annotation=parameter.empty))
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.POSITIONAL_ONLY
    ]
    unknown = [key for key in spec.config if key not in signature.parameters]
    hint = did_you_mean(unknown[0], signature.parameters) if unknown else ""
    return (
        f"component {origin} does not accept {spec!r}: {error}. {hint}"
        f"It accepts: {', '.join(accepted) or 'nothing'}"
    )


def find_provider(point: str) -> str:
    """Return a sentence on the installed component that provides a callback point, by its prefix.

    Args:
        point: the name of the callback point.
    """
    providers = [
        component
        for name, several in installed_components().items()
        for component in several
        if point.startswith(f"{name.replace('-', '_')}_")
    ]
    if providers:
        names = " or ".join(str(component) for component in providers)
        return f"Its name begins with that of {names}: add that to the list. "
    return "No installed component has a name that it begins with. "


def distribution_of(cls: type) -> tuple[str, str] | None:
    """Return the name and version of the distribution whose components are nearest to a class."""
    nearest: dict[int, set[tuple[str, str]]] = {}
    for several in installed_components().values():
        for component in several:
            module = component.entry_point.value.partition(":")[0].split(".")
            pairs = zip(module, cls.__module__.split("."), strict=False)
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            nearest.setdefault(shared, set()).add((component.distribution, component.version))
    shared = max(nearest, default=0)
    return nearest[shared].pop() if shared and len(nearest[shared]) == 1 else None
