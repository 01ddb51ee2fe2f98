"""Bundles: several items of a list under one name, from installed packages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ttl_core import discovery
from ttl_core.components.component import Item, LoopComponent, check_is_component
from ttl_core.components.identity import ByIdentity
from ttl_core.discovery import InstalledComponent, Spec, use
from ttl_core.errors import PluginError, TTLError

Origin = Mapping[str, Any]
"""The name, distribution and version of a bundle, as the manifest lists them."""

_bundles = ByIdentity[tuple[Origin, ...]]()
"""The bundles that components came from, outermost first."""


def bundle(name: str, /, **config: Any) -> list[Item]:
    """Return the items of an installed bundle, to be unpacked into a list.

    Unlike `use()`, it imports the bundle, as what is in it depends on the configuration.

    Args:
        name: the bundle's name, as installed; "distribution/name" picks one of several.
        **config: its configuration.

    Returns:
        What the bundle consists of: specs and components, each of which the manifest lists with
        the bundle. Take out or replace what you do not want.

    Raises:
        UnknownNameError: it is not installed, or several distributions declare it.
        PluginError: it cannot be imported, or returns something else.
        ConfigurationError: it does not accept this configuration.

    Example:
        >>> loop = TrainTestLoop(model, [*bundle("vision-baseline", lr=0.1), "progress"],
        ...                      train_data)  # doctest: +SKIP
    """
    discovery.check_name(name.rpartition("/")[2] if isinstance(name, str) else name, "bundle")
    installed = discovery.find(name, "bundle")
    factory = discovery.load(installed)
    given = "".join(f", {key}={value!r}" for key, value in config.items())
    discovery.check_configuration(installed, factory, config, f"bundle({name!r}{given})")
    try:
        items = factory(**config)
    except Exception as error:
        error.add_note(f"ttl: raised by bundle {installed}")
        raise
    if isinstance(items, str | Spec | LoopComponent) or not isinstance(items, Iterable):
        raise _wrong(installed, f"returned {items!r}, which is no list of components")
    return [_marked(item, i, installed) for i, item in enumerate(items)]


def bundles_of(component: LoopComponent) -> tuple[Origin, ...]:
    """Return the bundles that a component came from, outermost first."""
    return _bundles.get(component) or ()


def _marked(item: Item, i: int, installed: InstalledComponent) -> Item:
    """Return an item of a bundle, known to be of it."""
    origin = {
        "name": installed.name,
        "distribution": installed.distribution,
        "version": installed.version,
    }
    try:
        if isinstance(item, str):
            item = use(item)
        if isinstance(item, Spec):
            return dataclasses.replace(item, bundles=(origin, *item.bundles))
        check_is_component(item)
    except TTLError as error:
        raise _wrong(installed, f"returned an unusable item {i}: {error}") from None
    _bundles[item] = (origin, *bundles_of(item))
    return item


def _wrong(installed: InstalledComponent, problem: str) -> PluginError:
    return PluginError(
        f"bundle {installed}: its entry point {installed.entry_point.value!r} {problem}. Report it "
        f"to the author of {installed.distribution}"
    )
