"""arrange() and OrderWarnings compared with small models of §5 of the design."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import warnings_of

from ttl_core import LoopComponent, OrderCycleError, OrderWarning, TrainTestLoop, arrange

NAMES = "abcde"


class Part(NamedTuple):
    """What a component declares."""

    name: str
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def make(self) -> LoopComponent:
        """Return a component that declares this."""
        return type("Part", (LoopComponent,), self._asdict())()


hints = st.lists(st.sampled_from([*NAMES, "absent"]), max_size=2, unique=True).map(tuple)
parts = st.builds(Part, st.sampled_from(NAMES), hints, hints)


def wants(first: Part, then: Part) -> bool:
    """Tell whether one of two parts says that the first comes before the other."""
    return first.name != then.name and (first.name in then.after or then.name in first.before)


def is_valid(order: Sequence[Part]) -> bool:
    """Tell whether no part in an order is before a part that it has to follow."""
    return not any(wants(then, first) for first, then in itertools.combinations(order, 2))


def first_valid_order(items: Sequence[Part]) -> tuple[int, ...] | None:
    """Return, of all orders that respect every hint, the first by the positions in the list."""
    orders = itertools.permutations(range(len(items)))  # sorted, so that the first one is least
    return next((order for order in orders if is_valid([items[i] for i in order])), None)


def arranged(items: Sequence[Part]) -> tuple[int, ...] | None:
    """Return the positions of items in the order that arrange gives them, or None for a cycle."""
    components = [item.make() for item in items]
    positions = {id(component): i for i, component in enumerate(components)}
    try:
        return tuple(positions[id(component)] for component in arrange(components))
    except OrderCycleError:
        return None


@given(st.lists(parts, max_size=6))
@settings(deadline=None, max_examples=150)
def test_arrange_gives_the_first_order_that_respects_every_hint(items: list[Part]) -> None:
    """Of all valid orders, it is the least by original positions; if there is none, it fails."""
    assert first_valid_order(items) == arranged(items)


@given(st.lists(parts, max_size=6))
@settings(deadline=None)
def test_arrange_keeps_a_valid_order(items: list[Part]) -> None:
    """A list that respects every hint, as arranged lists do, is returned in its order."""
    order = arranged(items)
    if order is not None:
        assert tuple(range(len(items))) == arranged([items[i] for i in order])


@given(st.lists(parts, max_size=7))
@settings(deadline=None)
def test_a_list_is_warned_of_once_a_pair_that_contradicts_hints(items: list[Part]) -> None:
    """There are as many OrderWarnings as pairs in the wrong order: none for a valid list."""
    pairs = itertools.combinations(items, 2)
    contradicted = [(first, then) for first, then in pairs if wants(then, first)]
    caught = warnings_of(
        lambda: TrainTestLoop(torch.nn.Identity(), [item.make() for item in items])
    )
    assert [OrderWarning] * len(contradicted) == [warning.category for warning in caught]


STEP = re.compile(r"  '(\w+)' before '(\w+)', as '(\w+)' declares (after|before)='(\w+)'")


@given(st.lists(st.builds(Part, st.sampled_from("abc"), hints, hints), min_size=2, max_size=7))
@settings(deadline=None, max_examples=150)
def test_a_printed_cycle_is_a_real_one(items: list[Part]) -> None:
    """Each printed edge is one that a component declares, and together they are a cycle."""
    try:
        arrange([item.make() for item in items])
    except OrderCycleError as error:
        _, *lines, _ = str(error).splitlines()
        steps = [match.groups() for line in lines if (match := STEP.fullmatch(line))]
        assert len(lines) == len(steps)
        assert [first for first, *_ in steps[1:] + steps[:1]] == [then for _, then, *_ in steps]
        for first, then, author, hint, other in steps:
            assert (author, other) == ((then, first) if hint == "after" else (first, then))
            assert any(item.name == author and other in getattr(item, hint) for item in items)
