"""Members of a list: how they are created, named, and checked against one another."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ttl_core import discovery
from ttl_core.arguments import user_stacklevel
from ttl_core.components import environment
from ttl_core.components.bundles import bundles_of
from ttl_core.components.component import Item, LoopComponent, check_is_component, own_name
from ttl_core.components.hints import key_of, read_hints
from ttl_core.components.identity import ByIdentity
from ttl_core.components.names import free_name
from ttl_core.components.order import constraints_of
from ttl_core.components.stateful import check_state_methods, kept_arguments
from ttl_core.discovery import InstalledComponent, Spec, use
from ttl_core.errors import ConflictError, OrderWarning, PluginError, RequirementError
from ttl_core.group import Group
from ttl_core.hooks.hook_methods import hook_methods
from ttl_core.hooks.member import Member
from ttl_core.hooks.provided_points import provided_points


class _Origin(NamedTuple):
    """What a component was created from.

    Attributes:
        spec: its spec.
        factory: what its entry point names.
        installed: where that is installed.
    """

    spec: Spec
    factory: object
    installed: InstalledComponent


_origins = ByIdentity[_Origin]()
"""The origins of the components that were created from a spec."""


def create_member(item: Item) -> Member:
    """Return the member for a component, for the name of an installed one, or for a spec.

    A component that was created from a spec keeps its name and configuration in every list.

    Args:
        item: the component, name or spec.

    Raises:
        ComponentRejectedError: it is no component, or cannot be called.
        UnknownNameError: the name is not installed.
        PluginError: its entry point cannot be loaded, or creates no component.
        ConfigurationError: it does not accept the spec's configuration.
    """
    if isinstance(item, str):
        item = use(item)
    if isinstance(item, Spec):
        return _member_of_origin(*_create(item))
    check_is_component(item)
    origin = _origins.get(item)
    if origin is not None:
        return _member_of_origin(item, origin)
    name = own_name(item)
    member = Member(
        item,
        key=name,
        own_name=name,
        find_distribution=functools.cache(lambda: discovery.distribution_of(type(item))),
        config=kept_arguments(item),
        bundles=bundles_of(item),
    )
    return _read_declarations(member, item)


def spec_of(component: LoopComponent) -> Spec | None:
    """Return the spec that a component was created from; None if it was created by hand."""
    origin = _origins.get(component)
    return None if origin is None else origin.spec


def _create(spec: Spec) -> tuple[LoopComponent, _Origin]:
    try:
        component, factory, installed = discovery.create(spec)
    except Exception as error:
        for bundle in spec.bundles:
            error.add_note(
                f"ttl: {spec!r} comes from bundle {bundle['name']!r} "
                f"({bundle['distribution']} {bundle['version']})"
            )
        raise
    if not isinstance(component, LoopComponent):
        raise PluginError(
            f"component {installed}: its entry point {installed.entry_point.value!r} returned "
            f"{component!r}, which is not a LoopComponent. Report it to the author of "
            f"{installed.distribution}"
        )
    _origins[component] = origin = _Origin(spec, factory, installed)
    return component, origin


def _member_of_origin(component: LoopComponent, origin: _Origin) -> Member:
    spec, installed = origin.spec, origin.installed
    member = Member(
        component,
        key=installed.name,
        own_name=spec.name or own_name(component, installed.name),
        find_distribution=lambda: (installed.distribution, installed.version),
        entry_point=installed.name,
        former_names=installed.former_names,
        bundles=spec.bundles,
        config=spec.config,
        is_enabled=spec.is_enabled,
    )
    if isinstance(origin.factory, type):  # what its instance says includes what the class says
        return _read_declarations(member, component)
    return _read_declarations(member, origin.factory, component)


def _read_declarations(member: Member, named: object, *others: object) -> Member:
    member.hints = hints = read_hints(named, member, *others)
    check_state_methods(member.component, member)
    member.has_conditions = bool(hints.requires or hints.conflicts or member.component.only_once)
    member.methods = hook_methods(member.component, member)
    member.points = provided_points(member.component, member.key, member)
    member.is_main_only = bool(member.component.main_only)
    own = type(member.component).wrap_hookimpl
    member.wraps_others = own is not LoopComponent.wrap_hookimpl
    vars(member.plugin).update({name: method for name, (method, _) in member.methods.items()})
    return member


def assign_names(
    members: Mapping[int, Member], present: Mapping[int, str], reserved: Mapping[int, str]
) -> dict[int, str]:
    """Return the name of each member, where those that are in the list already keep theirs.

    Args:
        members: the members by the identity of their component.
        present: the names that are assigned already.
        reserved: those of them that are not free, also where their component is not a member.
    """
    names = {identity: present[identity] for identity in members if identity in present}
    for identity, member in members.items():
        if identity not in names:
            taken = {*names.values(), *reserved.values()}
            names[identity] = free_name(member.own_name, taken)
    return names


def current_name(name: str, names: Collection[str], members: Iterable[Member]) -> str:
    """Return the name in a list of a component that was installed by a former one, or the name.

    Args:
        name: what a script has: a name in the list, maybe with a number, or a former one.
        names: the names in the list.
        members: its members.
    """
    former, mark, number = name.partition("#")
    for member in members if name not in names else ():
        current = f"{member.key}{mark}{number}"
        if former in member.former_names and current in names:
            discovery.warn_of_former_name(former, f"{member.key!r} ({member.origin()})")
            return current
    return name


def check_conditions(members: Sequence[Member]) -> None:
    """Check that the active members of a list can be active together.

    Args:
        members: all members of the list.

    Raises:
        RequirementError: one that a member requires is absent or disabled.
        ConflictError: two of them conflict.
    """
    for member in members:
        if member.has_conditions and member.is_active:
            _check_requirements(member, members)
            _check_conflicts(member, members)


def _check_requirements(member: Member, members: Sequence[Member]) -> None:
    for key in member.hints.requires:
        found = [other for other in members if key_of(other).is_meant_by(key)]
        if any(other.is_active for other in found):
            continue
        if not found:
            raise RequirementError(
                f"{member} requires {key!r}, which is not in the list. Add {key!r}, or remove "
                f"{member.name!r} first"
            )
        fix = f"Enable {found[0].name!r}"
        if found[0].is_disabled_by_environment:
            fix = f"Remove it from TTL_DISABLE={environment.variable()}"
        raise RequirementError(
            f"{member} requires {key!r}, which is disabled. {fix}, or disable {member.name!r} first"
        )


def _check_conflicts(member: Member, members: Sequence[Member]) -> None:
    for other in members:
        declared = _conflict(member, other) if other.is_active and other is not member else None
        if declared:
            raise ConflictError(
                f"{member} and {other} cannot both be enabled: {member.name!r} declares "
                f"{declared}. Remove or disable one of them, as with "
                f"loop.components.disable({other.name!r})"
            )


def _conflict(member: Member, other: Member) -> str | None:
    """Return the declaration of a member with which another one conflicts, or None."""
    is_twin = other.key == member.key or type(other.component) is type(member.component)
    if member.component.only_once and is_twin:
        return "only_once=True"
    names = member.hints.conflicts
    return next((f"conflicts={n!r}" for n in names if key_of(other).is_meant_by(n)), None)


def joined_group(members: Iterable[Member]) -> Group:
    """Return the group that the first active member has joined which has one; else a group of one.

    Args:
        members: all members of the list.

    Raises:
        Exception: whatever joining it raises.
    """
    for member in members:
        group: Group | None = member.component.join_group() if member.is_active else None
        if group is not None:
            return group
    return Group()


def warn_of_order(members: Sequence[Member], warned: set[tuple[str, str]]) -> None:
    """Warn of each pair of members whose order contradicts a hint, once a pair.

    Args:
        members: the members in list order.
        warned: the pairs of names that were reported already; new ones are added.
    """
    for constraint in constraints_of(members):
        first, then = members[constraint.first], members[constraint.then]
        pair = (first.name, then.name)
        if constraint.then < constraint.first and pair not in warned:
            author, other = (then, first) if constraint.hint == "after" else (first, then)
            warnings.warn(
                f"{then.name!r} is before {first.name!r} in the list, but {author} declares "
                f"{constraint.hint}={other.key!r}. To change the order, write "
                f"loop.components.move({first.name!r}, before={then.name!r}), or "
                "arrange([...]) around the list",
                OrderWarning,
                stacklevel=user_stacklevel(),
            )
            warned.add(pair)  # not before: where warnings are errors, the edit was refused
