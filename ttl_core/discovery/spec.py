"""Specs: installed components by name, with their configuration, before they are created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttl_core.arguments import is_component_name, kebab_case
from ttl_core.errors import UnknownNameError


class Spec:
    """The name of an installed component with its configuration.

    Attributes:
        plugin: the entry point's name, or "distribution/name".
        name: the name in a list, or None for the default one.
        config: the configuration.
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
        if text is not None and not (isinstance(text, str) and is_component_name(text)):
            likely = kebab_case(text) if isinstance(text, str) else None
            hint = "" if likely in (None, "component") else f". Did you mean {likely!r}?"
            raise UnknownNameError(
                f"{text!r} cannot be a component's name: names are small letters, digits and "
                f"single dashes, as in 'grad-clip'{hint}"
            )
    return Spec(plugin, name, config)
