"""Hints in a user's list: they never change it, and a contradiction gives a warning."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from loops import call_order, make_loop, named
from recording import messages_of

from ttl_core import ComponentRejectedError, OrderWarning, TrainTestLoop


def order_warnings(action):
    """Return the texts of the OrderWarnings that an action gives."""
    return messages_of(action, OrderWarning)


@pytest.mark.parametrize(
    "components",
    [
        [named("a", after="b"), named("b")],
        [named("a"), named("b", before="a")],
        [named("a", after=("x", "b")), named("b", before=["a", "x"])],
    ],
    ids=["after", "before", "both"],
)
def test_hints_never_reorder_what_a_user_listed(components):
    """The user is the referee: a list that contradicts hints is called as it was written."""
    with pytest.warns(OrderWarning):
        loop = make_loop(*components)
    assert "ab" == call_order(loop)


def test_a_warning_names_both_components_and_the_fix():
    """The warning says where both are, which of them declares the hint, and what to write."""
    (text,) = order_warnings(lambda: make_loop(named("bar", after="sums"), named("sums")))
    expected = (
        "'bar' is before 'sums' in the list, but component 'bar' (class loops.Part) declares "
        "after='sums'. To change the order, write loop.components.move('sums', before='bar'), "
        "or arrange([...]) around the list"
    )
    assert expected == text


@pytest.mark.parametrize(
    "components",
    [
        [named("a", after="c"), named("b"), named("c")],
        [named("a"), named("b"), named("c", before="a")],
    ],
    ids=["after", "before"],
)
def test_the_fix_of_a_warning_works(components):
    """The statement that a warning offers ends the contradiction."""
    loops = []
    (text,) = order_warnings(lambda: loops.append(make_loop(*components)))
    eval(re.search(r"loop\.components\.move\(.*?\)", text)[0], {"loop": loops[0]})
    assert "cab" == call_order(loops[0])


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([named("a", after="b"), named("b", before="a")], 1),
        ([named("a", after=("b", "c")), named("b"), named("c")], 2),
        ([named("a", after="b"), named("b"), named("b")], 2),
        ([named("a", after="b"), named("a", after="b"), named("b")], 2),
    ],
    ids=["both declare it", "two others", "two instances", "two that declare it"],
)
def test_each_pair_is_warned_of_once(components, expected):
    """One pair gives one warning, whichever component declares the hint."""
    assert expected == len(order_warnings(lambda: make_loop(*components)))


def test_a_pair_is_not_warned_of_again():
    """Neither later edits nor an assigned list repeat a warning."""
    a, b = named("a", after="b"), named("b")
    with pytest.warns(OrderWarning):
        loop = make_loop(a, b)
    loop.components.append(named("c"))
    loop.components.move("a", after="b")
    loop.components.reverse()
    loop.components = [a, b]
    assert "ab" == call_order(loop)


def test_each_loop_has_its_own_warnings():
    """A second loop with the same contradiction gives the warning too."""
    for _ in range(2):
        assert 1 == len(order_warnings(lambda: make_loop(named("a", after="b"), named("b"))))


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.reverse(),
        lambda c: c.append(c.pop("b")),
        lambda c: c.insert(2, c.pop("b")),
        lambda c: c.insert("c", c.pop("b")),
        lambda c: c.extend([c.pop("b")]),
        lambda c: c.sort(key=lambda component: component.name),
        lambda c: c.move("b", after="a"),
        lambda c: c.__setitem__(slice(None), [c["a"], c["b"]]),
        lambda c: c.add(named("x", after="y", before="b")) or c.append(named("y")),
    ],
    ids=["reverse", "append", "insert", "by name", "extend", "sort", "move", "slice", "add"],
)
def test_every_edit_that_contradicts_a_hint_is_warned_of(edit):
    """Whichever operation causes a contradiction, the warning points at the user's line."""
    components = make_loop(named("b"), named("a", after="b"), named("c")).components
    with pytest.warns(OrderWarning) as caught:
        edit(components)
    assert [__file__] == [warning.filename for warning in caught]


def test_a_loop_that_contradicts_a_hint_is_warned_of_where_it_is_made():
    """The warning points at the user's line that makes the loop."""
    line = sys._getframe().f_lineno + 2
    with pytest.warns(OrderWarning) as caught:
        TrainTestLoop(torch.nn.Identity(), [named("a", after="b"), named("b")])
    assert [(__file__, line)] == [(warning.filename, warning.lineno) for warning in caught]


def test_a_list_that_contradicts_a_hint_is_warned_of_where_it_is_assigned():
    """The warning points at the user's line that assigns the list."""
    loop = make_loop()
    line = sys._getframe().f_lineno + 2
    with pytest.warns(OrderWarning) as caught:
        loop.components = [named("a", after="b"), named("b")]
    assert [(__file__, line)] == [(warning.filename, warning.lineno) for warning in caught]


@pytest.mark.parametrize("hint", ["after", "before"])
@pytest.mark.parametrize("names", ["absent", "a", ["absent", "a"]], ids=repr)
def test_hints_on_absent_components_and_on_itself_are_ignored(hint, names):
    """A hint on a component that is not in the list, or on itself, has no effect."""
    assert "aab" == call_order(make_loop(named("a", **{hint: names}), named("a"), named("b")))


def test_hints_that_a_list_respects_give_no_warning():
    """A list that respects all hints is left as it is."""
    assert "abc" == call_order(make_loop(named("a", before="c"), named("b", after="a"), named("c")))


@pytest.mark.parametrize("kind", [str, list, tuple, set, frozenset])
def test_hints_are_a_name_or_several(kind):
    """A hint is one name without brackets, or any collection of names."""
    names = "b" if kind is str else kind(["b"])
    assert 1 == len(order_warnings(lambda: make_loop(named("a", after=names), named("b"))))


@pytest.mark.parametrize("hint", ["after", "before", "requires"])
@pytest.mark.parametrize("value", ["Not A Name", "", "a#2", "dist/A", ["a", 3], 5], ids=repr)
def test_hints_that_are_no_names_are_refused(hint, value):
    """A hint that could never match is an error with the component and the hint."""
    with pytest.raises(ComponentRejectedError, match=rf"'a' .* {hint}={re.escape(repr(value))}"):
        make_loop(named("a", **{hint: value}))


def test_an_edit_that_a_warning_refused_is_refused_again():
    """Where warnings are errors, as in these tests, it changes nothing, each time."""
    loop = make_loop(named("sums"))
    for _ in range(2):
        with pytest.raises(OrderWarning):
            loop.components.insert(0, named("bar", after="sums"))
        assert ["sums"] == loop.components.names()
