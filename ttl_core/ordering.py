"""Pure functions on names: the grammar, suggestions, free names, and order by hints."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def is_name(text: str) -> bool:
    """Tell whether `text` is a component's name by the grammar.

    >>> is_name("grad-clip"), is_name("Grad_Clip")
    (True, False)
    """
    return _NAME.fullmatch(text) is not None


def kebab_case(text: str) -> str:
    """Turn an identifier or a title into a name, or into "component" where nothing is left.

    >>> kebab_case("MainLoop"), kebab_case("EMA"), kebab_case("_My Adam2"), kebab_case("42")
    ('main-loop', 'ema', 'my-adam2', 'component')
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", _HUMP.sub("-", text)).lower()
    return re.sub(r"^[^a-z]+", "", words).strip("-") or "component"


def free_name(name: str, taken: Collection[str]) -> str:
    """Return `name`, or `name#2`, `name#3` ... where it is taken.

    >>> free_name("metrics", {"metrics", "metrics#2"})
    'metrics#3'
    """
    number = 2
    free = name
    while free in taken:
        free = f"{name}#{number}"
        number += 1
    return free


class Hints(NamedTuple):
    """Hold what an author says about the place of a component, in entry-point names.

    Attributes:
        after: whom it comes after, if present.
        before: whom it comes before, if present.
        requires: who has to be present.
    """

    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


class Edge(NamedTuple):
    """Say that one place of a list comes before another, and which one's author says so how."""

    first: int
    then: int
    declared_by: int
    hint: str


def edges(keys: Sequence[str], hints: Sequence[Hints]) -> list[Edge]:
    """Return what the hints say about the order of a list.

    Args:
        keys: the entry-point name of each.
        hints: the hints of each. Absent names are ignored, and so is one's own.

    Example:
        >>> edges(["bar", "sum"], [Hints(after=("sum", "absent")), Hints()])
        [Edge(first=1, then=0, declared_by=0, hint='after')]
    """
    found = []
    for i, hint in enumerate(hints):
        for j, key in enumerate(keys):
            if key != keys[i]:
                if key in hint.after:
                    found.append(Edge(j, i, i, "after"))
                if key in hint.before:
                    found.append(Edge(i, j, i, "before"))
    return found


def arranged(count: int, constraints: Iterable[Edge]) -> list[int]:
    """Return the places of a list in an order that satisfies all edges.

    It is stable: of those that may come next, the first in the list does.

    Args:
        count: the length of the list.
        constraints: the edges.

    Raises:
        graphlib.CycleError: they contradict each other; its second argument is a cycle.

    Example:
        >>> arranged(3, [Edge(2, 0, 0, "after")])
        [1, 2, 0]
    """
    import graphlib
    import heapq

    sorter = graphlib.TopologicalSorter[int](dict.fromkeys(range(count), ()))
    for edge in constraints:
        sorter.add(edge.then, edge.first)
    sorter.prepare()
    order: list[int] = []
    waiting: list[int] = []
    while sorter.is_active():
        for place in sorter.get_ready():
            heapq.heappush(waiting, place)
        order.append(heapq.heappop(waiting))
        sorter.done(order[-1])
    return order


def place_for(count: int, constraints: Iterable[Edge]) -> int:
    """Return where in a list of `count` a newcomer belongs: as late as the edges let it.

    Args:
        count: the length of the list; the edges call the newcomer by this number.
        constraints: the edges of the list with the newcomer at its end.

    Example:
        >>> place_for(3, [Edge(3, 1, 3, "before")])
        1
    """
    return min((edge.then for edge in constraints if edge.first == count), default=count)
