"""A list of items in the order that the hints of their authors ask for."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterable, Sequence

from ttl_core import discovery
from ttl_core.components.component import Item, LoopComponent
from ttl_core.components.hints import Key, key_of, read_hints
from ttl_core.components.members import create_member
from ttl_core.components.order import Constraint, constraints, topological_order
from ttl_core.discovery.spec import Spec, use
from ttl_core.errors import OrderCycleError
from ttl_core.hooks.member import Hints


def arrange(items: Iterable[Item]) -> list[Item]:
    """Return the same items in an order that respects the hints of their authors.

    It is stable: a component without a reason to move stays where it is among the others. Names
    of installed components are looked up and imported, to read their hints; none is created.

    Args:
        items: components, names of installed ones, or specs.

    Returns:
        A new list of the same items.

    Raises:
        ComponentRejectedError: something is no component, or cannot be called.
        OrderCycleError: the hints contradict one another.
        UnknownNameError: a name is not installed.

    Example:
        >>> from ttl_core import LoopComponent
        >>> class Bar(LoopComponent):
        ...     after = "sums"
        >>> class Sums(LoopComponent): ...
        >>> [type(component).__name__ for component in arrange([Bar(), Sums()])]
        ['Sums', 'Bar']
    """
    items = list(items)
    keys, hints = [], []
    for item in items:
        key, its_hints = _declared_by(use(item) if isinstance(item, str) else item)
        keys.append(key)
        hints.append(its_hints)
    found = constraints(keys, hints)
    try:
        return [items[index] for index in topological_order(len(items), found)]
    except graphlib.CycleError as error:
        cycle = error.args[1]
        steps = [_describe_step(keys, found, *pair) for pair in itertools.pairwise(cycle)]
        raise OrderCycleError(
            "the hints contradict one another:\n" + "\n".join(steps) + "\nWrite the order that "
            "you want as a list, without arrange()"
        ) from None


def _declared_by(item: LoopComponent | Spec) -> tuple[Key, Hints]:
    """Return the names of an item, and the hints that its author declares."""
    if isinstance(item, Spec):
        installed = discovery.find(item.plugin)
        origin = installed.distribution, installed.version
        key = Key(installed.name, lambda: origin, installed.former_names)
        return key, read_hints(discovery.load(installed), f"component {installed}")
    member = create_member(item)
    return key_of(member), member.hints


def _describe_step(keys: Sequence[Key], found: Sequence[Constraint], first: int, then: int) -> str:
    constraint = next(c for c in found if (c.first, c.then) == (first, then))
    names = [key.name for key in keys]
    other = names[first if constraint.hint == "after" else then]
    return (
        f"  {names[first]!r} before {names[then]!r}, as {names[constraint.declared_by]!r} declares "
        f"{constraint.hint}={other!r}"
    )
