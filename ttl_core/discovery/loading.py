"""From names to components: finding, importing and creating what a spec names."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple

from ttl_core.arguments import did_you_mean, user_stacklevel
from ttl_core.discovery.diagnosis import explain_unknown, find_incompatibility, repair
from ttl_core.discovery.scanning import (
    InstalledComponent,
    Kind,
    installed_components,
    is_same_name,
    scan,
)
from ttl_core.discovery.spec import Spec
from ttl_core.errors import ConfigurationError, PluginError, UnknownNameError
from ttl_core.other_libraries import suggest_argument
from ttl_core.references import loaded

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
    """Return the installed component, or what else is installed, of a name.

    Args:
        plugin: its name, or "distribution/name"; of a component also a former one, which gives a
            warning.
        kind: what it is the name of.

    Raises:
        UnknownNameError: it is not installed, or several distributions declare it.
    """
    name = plugin.rpartition("/")[2]
    found = find_all(plugin, kind) or find_all(plugin, kind, again=True)
    if len(found) == 1:
        if found[0].name != name:
            warn_of_former_name(name, str(found[0]))
        return found[0]
    if found:
        choices = " or ".join(repr(f"{each.distribution}/{name}") for each in found)
        raise UnknownNameError(
            f"several distributions offer {name!r}: {', '.join(map(str, found))}. Write {choices}"
        )
    raise UnknownNameError(explain_unknown(plugin, name, kind))


def find_all(
    plugin: str, kind: Kind = "component", *, again: bool = False
) -> list[InstalledComponent]:
    """Return what is installed by a name, or else what once had it.

    Args:
        plugin: the name, or "distribution/name".
        kind: what it is the name of.
        again: whether to scan once more.
    """
    distribution, _, name = plugin.rpartition("/")
    scanned = scan(again)
    for known in (scanned.entries[kind], scanned.former if kind == "component" else {}):
        found = [
            each
            for each in known.get(name, ())
            if not distribution or is_same_name(distribution, each.distribution)
        ]
        if found:
            return found
    return []


_reported: set[str] = set()
"""The former names that were reported already."""


def warn_of_former_name(former: str, current: str) -> None:
    """Warn once of a former name of a component.

    Args:
        former: the name.
        current: the component as it is called now.
    """
    if former not in _reported:
        _reported.add(former)
        warnings.warn(
            f"the component {former!r} is now called {current}; the former name still works. "
            "Write the new one",
            FutureWarning,
            stacklevel=user_stacklevel(),
        )


def load(origin: InstalledComponent) -> Factory:
    """Import what an entry point names.

    Args:
        origin: the installed component, or what else is installed.

    Raises:
        PluginError: it needs another version of the core, cannot be imported, or cannot be called.
    """
    incompatibility = find_incompatibility(origin)
    if incompatibility:
        raise PluginError(
            f"{origin.kind} {origin} cannot be loaded: {origin.distribution} {incompatibility}. "
            f"Run: pip install --upgrade ttl-core {origin.distribution}"
        )
    value = origin.entry_point.value
    try:
        import_module(origin.entry_point.module)
    except (Exception, SystemExit) as error:
        what = f"importing {value.partition(':')[0]!r} raised {type(error).__name__}: {error}"
        raise _not_loaded(origin, what) from error
    try:
        factory = origin.entry_point.load()
    except Exception as error:
        there = vars(sys.modules[origin.entry_point.module])
        hint = did_you_mean(value.rpartition(":")[2], [n for n in there if callable(there[n])])
        raise _not_loaded(
            origin, f"its entry point {value!r} names nothing: {error}", hint
        ) from error
    if not callable(factory):
        raise PluginError(
            f"{origin.kind} {origin} cannot be created: its entry point "
            f"{value!r} is {factory!r}, not a class or function. Report it to "
            f"the author of {origin.distribution}"
        )
    return factory  # type: ignore[no-any-return]


def _not_loaded(origin: InstalledComponent, reason: str, hint: str = "") -> PluginError:
    fix = " ".join(repair(origin))
    error = PluginError(f"{origin.kind} {origin} cannot be loaded: {reason}. {hint}{fix}")
    error.reason = f"{reason}. {hint}".removesuffix(". ").rstrip()
    return error


def create(spec: Spec) -> Created:
    """Import what a spec names and create the component.

    Args:
        spec: the spec.

    Raises:
        UnknownNameError: it is not installed.
        PluginError: it cannot be imported.
        ConfigurationError: it does not accept this configuration.
    """
    origin = find(spec.plugin)
    factory = load(origin)
    check_configuration(origin, factory, spec.config, repr(spec))
    try:
        return Created(factory(**loaded(dict(spec.config))), factory, origin)
    except Exception as error:
        error.add_note(f"ttl: raised while creating component {origin} from {spec!r}")
        raise


def check_configuration(
    origin: InstalledComponent, factory: Factory, config: Mapping[str, object], written: str
) -> None:
    """Check that what an entry point names accepts a configuration.

    Args:
        origin: the installed component or bundle.
        factory: what its entry point names.
        config: the configuration.
        written: how it is written in a script, for the error.

    Raises:
        ConfigurationError: it does not.
    """
    import inspect

    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables have none; calling them is the only check
        return
    try:
        signature.bind(**config)
    except TypeError as error:
        parameters = signature.parameters.values()
        accepted = [
            str(parameter.replace(annotation=parameter.empty))
            for parameter in parameters
            if parameter.kind is not parameter.POSITIONAL_ONLY
        ]
        unknown = [key for key in config if key not in signature.parameters]
        problem, hint = str(error), ""
        if unknown:  # first, as a misspelled argument is missing too
            problem = f"it has no argument {unknown[0]!r}"
            hint = suggest_argument(unknown[0], signature.parameters)
        raise ConfigurationError(
            f"{origin.kind} {origin} does not accept {written}: {problem}. {hint}"
            f"It accepts: {', '.join(accepted) or 'nothing'}"
        ) from None


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
