"""arrange(): a new list of the same items, in an order that respects the hints."""

from __future__ import annotations

import pytest
from loops import call_order, make_loop, named

from ttl_core import (
    LoopComponent,
    OrderCycleError,
    OrderWarning,
    TTLError,
    UnknownNameError,
    arrange,
    use,
)

SOURCE = """
from ttl_core import LoopComponent

class Ordered(LoopComponent):
    after = "first"

    def __init__(self, **config):
        raise RuntimeError("arrange() has to make no component")
"""


def arranged(*components):
    """Return the names of components in the order that arrange gives them, as one word."""
    return "".join(component.name for component in arrange(components))


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([], ""),
        ([named("c"), named("a"), named("b")], "cab"),
        ([named("a", after="c"), named("b"), named("c"), named("d")], "bcad"),
        ([named("a"), named("b"), named("c", before="a"), named("d")], "bcad"),
        ([named("a", after="d"), named("b", after="a"), named("c"), named("d")], "cdab"),
        ([named("a", after="absent"), named("b", before="absent")], "ab"),
        ([named("a", after="b"), named("b"), named("b")], "bba"),
        ([named("a", after="a"), named("a", before="a")], "aa"),
        ([named("b", requires="a"), named("a")], "ba"),
    ],
    ids=[
        *("nothing", "no hints", "after", "before", "a chain", "absent names", "two instances"),
        *("its own name", "requires"),
    ],
)
def test_arrange_moves_only_what_has_to_move(components, expected):
    """arrange() follows `after` and `before`, and otherwise keeps the order."""
    assert expected == arranged(*components)


def test_arrange_returns_a_new_list_of_the_same_objects():
    """The given list stays as it was."""
    a, b = named("a", after="b"), named("b")
    given = [a, b]
    found = arrange(given)
    assert [id(b), id(a)] == [id(item) for item in found]
    assert [id(a), id(b)] == [id(item) for item in given]


def test_arrange_takes_any_iterable():
    """Items may come from an iterator."""
    assert "ba" == arranged(*iter([named("a", after="b"), named("b")]))


def test_arrange_keeps_names_and_specs_and_makes_no_component(install_component):
    """Names of installed components are looked up for their hints, and stay names."""
    ordered = install_component("ordered", SOURCE)
    spec, first = use(ordered, name="mine", rate=3), named("first")
    found = arrange([ordered, spec, first])
    assert [id(first), id(ordered), id(spec)] == [id(item) for item in found]


def test_arrange_looks_up_names():
    """A name that is not installed is an error."""
    with pytest.raises(UnknownNameError, match="no component 'not-there' is installed"):
        arrange(["not-there"])


@pytest.mark.parametrize("thing", [5, None, LoopComponent], ids=repr)
def test_arrange_refuses_what_is_no_component(thing):
    """What cannot be in a list is an error that says so."""
    with pytest.raises(TTLError, match="component"):
        arrange([named("a"), thing])


def test_what_arrange_returns_gives_no_warning():
    """An arranged list contradicts no hint."""
    components = [named("a", after="b"), named("b", after="c"), named("c")]
    assert "cba" == call_order(make_loop(*arrange(components)))


@pytest.mark.parametrize(
    ("components", "steps"),
    [
        (
            [named("a", after="b"), named("b", after="a")],
            [
                "  'a' before 'b', as 'b' declares after='a'",
                "  'b' before 'a', as 'a' declares after='b'",
            ],
        ),
        (
            [named("a", before="b"), named("x"), named("b", before="c"), named("c", before="a")],
            [
                "  'a' before 'b', as 'a' declares before='b'",
                "  'b' before 'c', as 'b' declares before='c'",
                "  'c' before 'a', as 'c' declares before='a'",
            ],
        ),
        (
            [named("a", before="b", after="b"), named("b")],
            [
                "  'a' before 'b', as 'a' declares before='b'",
                "  'b' before 'a', as 'a' declares after='b'",
            ],
        ),
    ],
    ids=["two that are after each other", "three", "one that contradicts itself"],
)
def test_a_cycle_is_printed_edge_by_edge(components, steps):
    """Hints that contradict one another are an error that says which component declares which."""
    with pytest.raises(OrderCycleError) as caught:
        arrange(components)
    first, *found, last = str(caught.value).splitlines()
    assert "the hints contradict one another:" == first
    assert steps == sorted(found)
    assert "Write the order that you want as a list, without arrange()" == last


def test_a_list_may_hold_a_cycle():
    """Only arrange() fails on a cycle; a user's list of the same components is called."""
    with pytest.warns(OrderWarning):
        loop = make_loop(named("a", after="b"), named("b", after="a"))
    assert "ab" == call_order(loop)
