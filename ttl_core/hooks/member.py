"""A component of a list, with what the list knows about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pluggy

from ttl_core.references import as_data, qualified_name

HookMethods = Mapping[str, tuple[Callable[..., Any], pluggy.HookimplOpts]]
"""The hook methods of a component by their own names, with pluggy's options for each."""


class Hints(NamedTuple):
    """What an author declares about the place of a component, in names of entry points.

    Attributes:
        after: the components that it is placed after, where they are present.
        before: the components that it is placed before, where they are present.
        requires: the components that have to be present and enabled.
        conflicts: the components that must not be enabled beside it.
    """

    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


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
        entry_point: the name of its entry point; None for a component created by hand.
        former_names: the names that its entry point had in earlier versions.
        bundles: the bundles that it came from, outermost first, as the manifest lists them.
        config: the configuration that it was created with, by name; of a component that was not
            created from a name, what is known of it.
        hints: what its author declares about its place.
        has_conditions: whether it can be active only with or without certain others.
        methods: its hook methods.
        points: the hookspecs of the callback points that it provides.
        wraps_others: whether its `wrap_hookimpl` replaces the hook methods of other components.
        is_main_only: whether its hooks are called in the main process of a group alone.
        name: its name in the list that was used last: its own, or one with a number where that
            was taken.
        is_enabled: whether the code enables it.
        checked_points: the core points whose results were checked, see `HookManager`.
        is_disabled_by_environment: whether the environment disables it.
        plugin: what pluggy registers for it.
    """

    component: Any
    key: str
    own_name: str
    find_distribution: Callable[[], tuple[str, str] | None]
    entry_point: str | None = None
    former_names: Sequence[str] = ()
    bundles: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    hints: Hints = field(default_factory=Hints)
    has_conditions: bool = False
    methods: HookMethods = field(default_factory=dict)
    points: Mapping[str, Any] = field(default_factory=dict)
    wraps_others: bool = False
    is_main_only: bool = False
    is_enabled: bool = True
    is_disabled_by_environment: bool = False
    checked_points: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.name = self.own_name
        self.plugin = Plugin(self)

    @property
    def is_active(self) -> bool:
        """Whether its hooks are called."""
        return self.is_enabled and not self.is_disabled_by_environment

    def origin(self) -> str:
        """Return its distribution and version, or its class where it has none."""
        return " ".join(self.find_distribution() or [qualified_name(type(self.component))])

    def __str__(self) -> str:
        kind = "" if self.find_distribution() else "class "
        return f"component {self.name!r} ({kind}{self.origin()})"

    def record(self) -> dict[str, Any]:
        """Return what the list knows about it as data that JSON can hold."""
        distribution, version = self.find_distribution() or (None, None)
        return {
            "name": self.name,
            "plugin": self.entry_point,
            "class": qualified_name(type(self.component)),
            "distribution": distribution,
            "version": version,
            "enabled": self.is_active,
            "bundles": list(self.bundles),
            "config": as_data(self.config),
        }
