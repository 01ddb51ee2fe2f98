"""Order by hints: constraints on a list, and the orders that satisfy them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ttl_core.components.hints import Key, key_of
from ttl_core.hooks.member import Hints, Member


class Constraint(NamedTuple):
    """A declared order of two components of a list, all given by their indices.

    Attributes:
        first: the one that is placed before the other.
        then: the other.
        declared_by: the one whose author declares it.
        hint: the name of the hint that does, "after" or "before".
    """

    first: int
    then: int
    declared_by: int
    hint: str


def constraints(keys: Sequence[Key], hints: Sequence[Hints]) -> list[Constraint]:
    """Return the constraints that hints put on the order of a list.

    Args:
        keys: the names of each component.
        hints: the hints of each. Absent names are ignored, and so is the component's own.

    Example:
        >>> constraints([Key("bar"), Key("sum")], [Hints(after=("sum", "absent")), Hints()])
        [Constraint(first=1, then=0, declared_by=0, hint='after')]
    """
    found = []
    for i, hint in enumerate(hints):
        for j, key in enumerate(keys) if hint.after or hint.before else ():
            if key.name != keys[i].name:
                if any(map(key.is_meant_by, hint.after)):
                    found.append(Constraint(j, i, i, "after"))
                if any(map(key.is_meant_by, hint.before)):
                    found.append(Constraint(i, j, i, "before"))
    return found


def topological_order(count: int, given: Iterable[Constraint]) -> list[int]:
    """Return the indices of a list in an order that satisfies all constraints.

    It is stable: of those that may come next, the first in the list does.

    Args:
        count: the length of the list.
        given: the constraints.

    Raises:
        graphlib.CycleError: they contradict each other; its second argument is a cycle.

    Example:
        >>> topological_order(3, [Constraint(2, 0, 0, "after")])
        [1, 2, 0]
    """
    import graphlib
    import heapq

    sorter = graphlib.TopologicalSorter[int](dict.fromkeys(range(count), ()))
    for constraint in given:
        sorter.add(constraint.then, constraint.first)
    sorter.prepare()
    order: list[int] = []
    waiting: list[int] = []
    while sorter.is_active():
        for index in sorter.get_ready():
            heapq.heappush(waiting, index)
        order.append(heapq.heappop(waiting))
        sorter.done(order[-1])
    return order


def insertion_index(count: int, given: Iterable[Constraint]) -> int:
    """Return the last index at which a new component is before all that have to follow it.

    Args:
        count: the length of the list, which is the index of the new component in `given`.
        given: the constraints of the list with the new component at its end.

    Example:
        >>> insertion_index(3, [Constraint(3, 1, 3, "before")])
        1
    """
    return min((c.then for c in given if c.first == count), default=count)


def constraints_of(members: Sequence[Member]) -> list[Constraint]:
    """Return the constraints that the hints of members put on their order."""
    return constraints(list(map(key_of, members)), [member.hints for member in members])
