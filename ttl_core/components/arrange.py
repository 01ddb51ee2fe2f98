"""A list of items in the order that the hints of their authors ask for."""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterable, Sequence

from ttl_core import discovery
from ttl_core.components.component import Item, check_is_component, own_name
from ttl_core.components.hints import read_hints
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
    keys: list[str] = []
    hints: list[Hints] = []
    for item in (use(item) if isinstance(item, str) else item for item in items):
        if isinstance(item, Spec):
            installed = discovery.find(item.plugin)
            keys.append(installed.name)
            hints.append(read_hints(discovery.load(installed), f"component {installed}"))
        else:
            check_is_component(item)
            keys.append(own_name(item))
            hints.append(read_hints(type(item), f"component {keys[-1]!r}"))
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


def _describe_step(keys: Sequence[str], found: Sequence[Constraint], first: int, then: int) -> str:
    constraint = next(c for c in found if (c.first, c.then) == (first, then))
    other = keys[first if constraint.hint == "after" else then]
    return (
        f"  {keys[first]!r} before {keys[then]!r}, as {keys[constraint.declared_by]!r} declares "
        f"{constraint.hint}={other!r}"
    )
