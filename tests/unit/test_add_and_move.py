"""Adding a component at the position that hints choose, and moving one by name."""

from __future__ import annotations

import pytest
from loops import call_order, make_loop, named
from recording import messages_of

from ttl_core import ArgumentError, ComponentRejectedError, OrderWarning, UnknownNameError


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (named("x"), "abcx"),
        (named("x", after="a"), "abcx"),
        (named("x", before="absent"), "abcx"),
        (named("x", before="b"), "axbc"),
        (named("x", before=("c", "b")), "axbc"),
        (named("x", after="a", before="c"), "abxc"),
        (named("y"), "aybc"),
        (named("y", before="c"), "aybc"),
        (named("y", before="a"), "yabc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_add_chooses_the_position_by_the_hints(new, expected):
    """add() inserts a component before the first one that has to be after it, else at the end."""
    loop = make_loop(named("a"), named("b", after="y"), named("c"))
    loop.components.add(new)
    assert expected == call_order(loop)


def test_add_inserts_before_all_instances_that_have_to_be_after():
    """Of several instances of one name, add() inserts before the first one."""
    loop = make_loop(named("a"), named("b"), named("a"))
    loop.components.add(named("x", before="a"))
    assert "xaba" == call_order(loop)


def test_add_warns_if_no_position_respects_all_hints():
    """If no position is right, the components that have to be after the new one are."""
    loop = make_loop(named("a"), named("b"))
    (text,) = messages_of(
        lambda: loop.components.add(named("x", before="a", after="b")), OrderWarning
    )
    assert "xab" == call_order(loop)
    assert text.startswith("'x' is before 'b' in the list, but component 'x'")


def test_a_refused_add_changes_nothing():
    """What is no component is not added."""
    loop = make_loop(named("a"))
    with pytest.raises(ComponentRejectedError):
        loop.components.add(5)
    assert "a" == call_order(loop)


# -- move, replace and insert by name -------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "beside", "expected"),
    [
        ("a", {"before": "d"}, "bcad"),
        ("a", {"after": "d"}, "bcda"),
        ("d", {"before": "a"}, "dabc"),
        ("d", {"after": "a"}, "adbc"),
        ("b", {"before": "c"}, "abcd"),
        ("b", {"after": "a"}, "abcd"),
    ],
)
@pytest.mark.parametrize("by", ["name", "component"])
def test_move_puts_a_component_beside_another(loop, item, beside, expected, by):
    """move() takes names or components, and keeps the order of the others."""
    if by == "component":
        item = loop.components[item]
        beside = {side: loop.components[name] for side, name in beside.items()}
    loop.components.move(item, **beside)
    assert expected == call_order(loop)


def test_a_moved_component_keeps_its_name():
    """Of two components with the same name, each keeps its number."""
    components = make_loop(named("a"), named("a")).components
    components.move("a#2", before="a")
    assert ["a#2", "a"] == components.names()


@pytest.mark.parametrize(
    ("item", "beside", "error", "problem"),
    [
        ("a", {}, ArgumentError, "exactly one of before= and after="),
        ("a", {"before": "b", "after": "c"}, ArgumentError, "exactly one of before= and after="),
        ("a", {"before": "a"}, ArgumentError, "'a' cannot be moved before or after itself"),
        ("a", {"after": "a"}, ArgumentError, "'a' cannot be moved before or after itself"),
        ("x", {"before": "a"}, UnknownNameError, "no component 'x' is in the list"),
        ("a", {"after": "x"}, UnknownNameError, "no component 'x' is in the list"),
    ],
)
def test_an_impossible_move_is_refused(loop, item, beside, error, problem):
    """A refused move says why and changes nothing."""
    with pytest.raises(error, match=problem):
        loop.components.move(item, **beside)
    assert "abcd" == call_order(loop)


def test_a_component_is_replaced_by_name(loop):
    """Assigning to a name puts the new component at the position of the old one."""
    loop.components["b"] = named("x")
    assert "axcd" == call_order(loop)


def test_a_component_is_inserted_before_a_name(loop):
    """insert() takes a name instead of an index."""
    loop.components.insert("b", named("x"))
    assert "axbcd" == call_order(loop)
