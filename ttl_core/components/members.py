"""Members of a list: how they are created, named, and checked against one another."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ttl_core import discovery
from ttl_core.arguments import user_stacklevel
from ttl_core.components import environment
from ttl_core.components.component import Item, LoopComponent, check_is_component, own_name
from ttl_core.components.hints import read_hints
from ttl_core.components.names import free_name
from ttl_core.components.order import constraints_of
from ttl_core.components.stateful import check_state_methods, kept_arguments
from ttl_core.discovery import InstalledComponent, Spec, use
from ttl_core.errors import OrderWarning, PluginError, RequirementError
from ttl_core.hooks.hook_methods import hook_methods
from ttl_core.hooks.member import Member
from ttl_core.hooks.provided_points import provided_points


class _Origin(NamedTuple):
    """What a component was created from.

    Attributes:
        component: the component, as long as it lives.
        spec: its spec.
        factory: what its entry point names.
        installed: where that is installed.
    """

    component: weakref.ref[LoopComponent]
    spec: Spec
    factory: object
    installed: InstalledComponent


_origins: dict[int, _Origin] = {}
"""By the identity of the component, as components may be equal to one another or unhashable."""


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
    origin = _origins.get(id(item))
    if origin is not None and origin.component() is item:
        return _member_of_origin(item, origin)
    name = own_name(item)
    member = Member(
        item,
        key=name,
        own_name=name,
        find_distribution=lambda: discovery.distribution_of(type(item)),
        config=kept_arguments(item),
    )
    return _read_declarations(member, type(item))


def _create(spec: Spec) -> tuple[LoopComponent, _Origin]:
    component, factory, installed = discovery.create(spec)
    if not isinstance(component, LoopComponent):
        raise PluginError(
            f"component {installed}: its entry point {installed.entry_point.value!r} returned "
            f"{component!r}, which is not a LoopComponent. Report it to the author of "
            f"{installed.distribution}"
        )
    key = id(component)
    reference = weakref.ref(component, lambda _: _origins.pop(key, None))
    _origins[key] = _Origin(reference, spec, factory, installed)
    return component, _origins[key]


def _member_of_origin(component: LoopComponent, origin: _Origin) -> Member:
    installed = origin.installed
    member = Member(
        component,
        key=installed.name,
        own_name=origin.spec.name or own_name(component, installed.name),
        find_distribution=lambda: (installed.distribution, installed.version),
        config=origin.spec.config,
    )
    return _read_declarations(member, origin.factory)


def _read_declarations(member: Member, declared_on: object) -> Member:
    member.hints = read_hints(declared_on, member)
    check_state_methods(member.component, member)
    member.methods = hook_methods(member.component, member)
    member.points = provided_points(member.component, member.key, member)
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


def check_requirements(members: Sequence[Member]) -> None:
    """Check that what each active member requires is in the list and active.

    Args:
        members: all members of the list.

    Raises:
        RequirementError: it is not.
    """
    for member in members:
        for key in member.hints.requires if member.is_active else ():
            found = [other for other in members if other.key == key]
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
                f"{member} requires {key!r}, which is disabled. {fix}, or disable "
                f"{member.name!r} first"
            )


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
            warned.add(pair)
            author, other = (then, first) if constraint.hint == "after" else (first, then)
            warnings.warn(
                f"{then.name!r} is before {first.name!r} in the list, but {author} declares "
                f"{constraint.hint}={other.key!r}. To change the order, write "
                f"loop.components.move({first.name!r}, before={then.name!r}), or "
                "arrange([...]) around the list",
                OrderWarning,
                stacklevel=user_stacklevel(),
            )
