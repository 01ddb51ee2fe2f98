"""Members of a list: how they are created, named, and checked against one another."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

from ttl_core import discovery
from ttl_core.arguments import user_stacklevel
from ttl_core.components import environment
from ttl_core.components.component import Item, LoopComponent, check_is_component, own_name
from ttl_core.components.hints import read_hints
from ttl_core.components.names import free_name
from ttl_core.components.order import constraints_of
from ttl_core.discovery import Spec, use
from ttl_core.errors import OrderWarning, PluginError, RequirementError
from ttl_core.hooks.hook_methods import hook_methods
from ttl_core.hooks.member import Member
from ttl_core.hooks.provided_points import provided_points


def create_member(item: Item) -> Member:
    """Return the member for a component, for the name of an installed one, or for a spec.

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
    if not isinstance(item, Spec):
        check_is_component(item)
        name = own_name(item)
        member = Member(
            item,
            key=name,
            own_name=name,
            find_distribution=lambda: discovery.distribution_of(type(item)),
        )
        return _read_declarations(member, type(item))
    component, factory, origin = discovery.create(item)
    if not isinstance(component, LoopComponent):
        raise PluginError(
            f"component {origin}: its entry point {origin.entry_point.value!r} returned "
            f"{component!r}, which is not a LoopComponent. Report it to the author of "
            f"{origin.distribution}"
        )
    member = Member(
        component,
        key=origin.name,
        own_name=item.name or own_name(component, origin.name),
        find_distribution=lambda: (origin.distribution, origin.version),
        config=item.config,
    )
    return _read_declarations(member, factory)


def _read_declarations(member: Member, declared_on: object) -> Member:
    member.hints = read_hints(declared_on, member)
    member.methods = hook_methods(member.component, member)
    member.points = provided_points(member.component, member.key, member)
    vars(member.plugin).update({name: method for name, (method, _) in member.methods.items()})
    return member


def assign_names(members: Mapping[int, Member], present: Collection[int]) -> dict[int, str]:
    """Return the name of each member: one that stays in the list keeps its name.

    Args:
        members: the members by the identity of their component.
        present: the identities of the components that are in the list already.
    """

    def seniority(identity: int) -> int:
        return 0 if identity in present else 1 if members[identity].was_in_list else 2

    names: dict[int, str] = {}
    for identity in sorted(members, key=seniority):
        name = members[identity].name
        taken = names.values()
        names[identity] = (
            name if name not in taken else free_name(members[identity].own_name, taken)
        )
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
