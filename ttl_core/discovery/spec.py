"""Specs: installed components by name, with their configuration, before they are created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ttl_core.arguments import describe, is_component_name, kebab_case
from ttl_core.errors import ConfigurationError, UnknownNameError


@dataclass(frozen=True, eq=False)
class Spec:
    """The name of an installed component with its configuration.

    Attributes:
        plugin: the entry point's name, or "distribution/name".
        name: the name in a list, or None for the default one.
        config: the configuration.
        is_enabled: whether it is enabled when it enters a list.
        bundles: the bundles that it came from, outermost first, as the manifest lists them.
    """

    plugin: str
    name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    is_enabled: bool = True
    bundles: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        # what can be no keyword of use() is in its mapping
        others = {k: v for k, v in self.config.items() if k == "name" or not k.isidentifier()}
        keywords = {k: v for k, v in self.config.items() if k not in others}
        name = {} if self.name is None else {"name": self.name}
        mapping = f", {others!r}" if others else ""
        given = "".join(f", {key}={value!r}" for key, value in {**name, **keywords}.items())
        return f"use({self.plugin!r}{mapping}{given})"


def use(
    plugin: str,
    configuration: Mapping[str, Any] | None = None,
    /,
    *,
    name: str | None = None,
    **config: Any,
) -> Spec:
    """Name an installed component to put into a list, with its configuration.

    Nothing is looked up or imported before the spec enters a list.

    Args:
        plugin: the component's name, as installed; "distribution/name" picks one of several.
        configuration: its configuration as a mapping, for arguments that cannot be keywords here,
            such as one that is called `name`.
        name: a name of its own in the list.
        **config: its configuration.

    Returns:
        A spec. A bare string in a list means `use(string)`.

    Raises:
        UnknownNameError: `plugin` or `name` cannot be the name of a component.
        ConfigurationError: `configuration` is no mapping of names, or a name is given twice.

    Example:
        >>> use("checkpoint", directory="runs/a", keep=3)
        use('checkpoint', directory='runs/a', keep=3)
        >>> use("acme-board", {"name": "run-7"}, name="board")
        use('acme-board', {'name': 'run-7'}, name='board')
    """
    if not isinstance(plugin, str):
        raise UnknownNameError(
            f"use() takes the name of an installed component, not {plugin!r}. "
            "Put components that you make yourself into the list as they are."
        )
    for text in (plugin.rpartition("/")[2], name):
        if text is not None:
            check_name(text, "component")
    given = {} if configuration is None else configuration
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigurationError(
            f"the configuration of {plugin!r} is {describe(given)}, but has to be a mapping of "
            f"the names of its arguments to their values. Write use({plugin!r}, argument=value); "
            f"`ttl show {plugin}` lists the arguments"
        )
    for key in given.keys() & config.keys():
        raise ConfigurationError(f"use({plugin!r}) is given {key!r} twice: {given!r}, {key}=")
    return Spec(plugin, name, {**given, **config})


def check_name(text: object, kind: str) -> None:
    """Check that a text can be a name by the grammar.

    Args:
        text: the text.
        kind: what it is the name of, for the error.

    Raises:
        UnknownNameError: it cannot.
    """
    if not (isinstance(text, str) and is_component_name(text)):
        likely = kebab_case(text) if isinstance(text, str) else None
        hint = "" if likely in (None, "component") else f". Did you mean {likely!r}?"
        raise UnknownNameError(
            f"{text!r} cannot be a {kind}'s name: names are small letters, digits and "
            f"single dashes, as in 'grad-clip'{hint}"
        )
