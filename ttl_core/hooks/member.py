"""A component of a list, with what the list knows about it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

import pluggy

HookMethods = Mapping[str, tuple[Callable[..., Any], pluggy.HookimplOpts]]
"""The hook methods of a component by their own names, with pluggy's options for each."""


class Hints(NamedTuple):
    """What an author declares about the place of a component, in names of entry points.

    Attributes:
        after: the components that it is placed after, where they are present.
        before: the components that it is placed before, where they are present.
        requires: the components that have to be present and enabled.
    """

    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


class Plugin:
    """The hook methods of one member, as pluggy sees them.

    pluggy compares plugins with `==` and reads all their attributes; components may be equal to
    one another and may have properties that run code.
    """

    __slots__ = ("__dict__", "member")

    def __init__(self, member: Member) -> None:
        self.member = member


@dataclass(eq=False)
class Member:
    """A component of a list, with what the list knows about it.

    Attributes:
        component: the component.
        key: its entry point's name, by which hints and callback points refer to it.
        own_name: the name that it is given where that is free.
        find_distribution: returns the name and version of its distribution, if it has one.
        config: the configuration that it was created with, by name; of a component that was not
            created from a name, what is known of it.
        hints: what its author declares about its place.
        methods: its hook methods.
        points: the hookspecs of the callback points that it provides.
        wraps_others: whether its `wrap_hookimpl` replaces the hook methods of other components.
        name: its name in the list that was used last: its own, or one with a number where that
            was taken.
        is_enabled: whether the code enables it.
        is_disabled_by_environment: whether the environment disables it.
        plugin: what pluggy registers for it.
    """

    component: Any
    key: str
    own_name: str
    find_distribution: Callable[[], tuple[str, str] | None]
    config: Mapping[str, Any] = field(default_factory=dict)
    hints: Hints = field(default_factory=Hints)
    methods: HookMethods = field(default_factory=dict)
    points: Mapping[str, Any] = field(default_factory=dict)
    wraps_others: bool = False
    is_enabled: bool = True
    is_disabled_by_environment: bool = False

    def __post_init__(self) -> None:
        self.name = self.own_name
        self.plugin = Plugin(self)

    @property
    def is_active(self) -> bool:
        """Whether its hooks are called."""
        return self.is_enabled and not self.is_disabled_by_environment

    def origin(self) -> str:
        """Return its distribution and version, or its class where it has none."""
        return " ".join(self.find_distribution() or [_qualified_name(type(self.component))])

    def __str__(self) -> str:
        kind = "" if self.find_distribution() else "class "
        return f"component {self.name!r} ({kind}{self.origin()})"

    def record(self) -> dict[str, Any]:
        """Return what the list knows about it as data that JSON can hold."""
        distribution, version = self.find_distribution() or (None, None)
        return {
            "name": self.name,
            "class": _qualified_name(type(self.component)),
            "distribution": distribution,
            "version": version,
            "enabled": self.is_active,
            "config": _as_json(self.config),
        }


def _qualified_name(value: Any) -> str:
    """Return the name of a class or function, or of an object's class."""
    named = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else named.__qualname__


def _as_json(value: Any) -> Any:
    """Return JSON values as they are, paths as text, and others by qualified name."""
    match value:
        case None | bool():
            return value
        case int():  # subclasses, such as enums and NumPy's numbers, become plain numbers
            return int(value)
        case str():
            return str.__str__(value)
        case PurePath():
            return str(value)
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case list() | tuple():
            return [_as_json(item) for item in value]
        case Mapping():
            return {str(key): _as_json(item) for key, item in value.items()}
        case _:
            return _qualified_name(value)
