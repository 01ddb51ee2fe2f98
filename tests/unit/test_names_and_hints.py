"""The functions on names, and on the constraints that hints declare."""

from __future__ import annotations

from graphlib import CycleError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttl_core.arguments import did_you_mean, is_component_name, kebab_case
from ttl_core.components.hints import Key
from ttl_core.components.names import free_name
from ttl_core.components.order import (
    Constraint,
    constraints,
    insertion_index,
    topological_order,
)
from ttl_core.hooks.member import Hints


@pytest.mark.parametrize("text", ["a", "ema", "grad-clip", "top5", "a-1-b2"])
def test_names_by_the_grammar(text):
    """A name has lower-case letters, digits and single dashes, and begins with a letter."""
    assert is_component_name(text)


@pytest.mark.parametrize(
    "text",
    ["", "A", "gradClip", "grad_clip", "grad clip", "-a", "a-", "a--b", "5top", "a#2", "é", "a\n"],
    ids=repr,
)
def test_texts_that_are_no_names(text):
    """Anything else is no name."""
    assert not is_component_name(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MainLoop", "main-loop"),
        ("EMA", "ema"),
        ("EMAModel", "ema-model"),
        ("Adam2Step", "adam2-step"),
        ("_Private__Name_", "private-name"),
        ("My own bar!", "my-own-bar"),
        ("4Bit", "bit"),
        ("already-kebab", "already-kebab"),
        ("", "component"),
        ("Ω", "component"),
    ],
)
def test_kebab_case_of(text, expected):
    """Words begin with capitals, digits stay in their word, and all else becomes a dash."""
    assert expected == kebab_case(text)


@given(st.text())
def test_kebab_case_always_gives_a_name(text):
    """The kebab-case of any text is a name by the grammar."""
    assert is_component_name(kebab_case(text))


@given(st.text(alphabet="aZ9_é-", max_size=8))
def test_kebab_case_of_kebab_case_is_itself(text):
    """A name in kebab-case is not changed."""
    assert kebab_case(text) == kebab_case(kebab_case(text))


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "a"),
        (["b"], "a"),
        (["a"], "a#2"),
        (["a", "a#2"], "a#3"),
        (["a", "a#3"], "a#2"),
        (["a#2"], "a"),
    ],
)
def test_the_first_free_name(taken, expected):
    """A taken name gets the smallest number that is free."""
    assert expected == free_name("a", taken)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("metrisc", "Did you mean 'metrics'? "),
        ("METRICS", "Did you mean 'metrics'? "),
        ("metrics-bar", "Did you mean 'metrics'? "),
        ("xyz", ""),
    ],
)
def test_a_near_name_is_suggested(wrong, expected):
    """A similar name is suggested, in upper or lower case; a different one is not."""
    assert expected == did_you_mean(wrong, ["metrics", "progress"])


def test_without_names_nothing_is_suggested():
    """Without names, there is no suggestion."""
    assert "" == did_you_mean("metrics", [])


# -- hints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (Hints(), []),
        (Hints(after=("b",)), [Constraint(first=1, then=0, declared_by=0, hint="after")]),
        (Hints(before=("b",)), [Constraint(first=0, then=1, declared_by=0, hint="before")]),
        (Hints(requires=("b",)), []),
        (Hints(after=("absent",), before=("absent",)), []),
        (Hints(after=("a",), before=("a",)), []),
    ],
    ids=["none", "after", "before", "requires", "absent", "itself"],
)
def test_there_is_an_edge_for_each_hint_on_a_component_in_the_list(hints, expected):
    """Only `after` and `before` give edges, and only to other components in the list."""
    assert expected == constraints([Key("a"), Key("b")], [hints, Hints()])


def test_a_hint_applies_to_all_components_of_that_name():
    """A hint gives an edge to each of two components from one entry point."""
    found = constraints(list(map(Key, "abb")), [Hints(before=("b",)), Hints(), Hints()])
    assert [(0, 1), (0, 2)] == [(edge.first, edge.then) for edge in found]


orders = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


def first_order(count, pairs):
    """Return the order that takes the first possible item each time, or None if there is none."""
    order, left = [], list(range(count))
    while left:
        free = [i for i in left if not any(then == i and first in left for first, then in pairs)]
        if not free:
            return None
        order.append(free[0])
        left.remove(free[0])
    return order


@given(orders)
def test_arranged_takes_the_first_possible_item_each_time(pairs):
    """An arranged list respects all edges, and moves no more than it has to."""
    constraints = [Constraint(first, then, first, "before") for first, then in pairs]
    expected = first_order(6, pairs)
    if expected is None:
        with pytest.raises(CycleError):
            topological_order(6, constraints)
    else:
        assert expected == topological_order(6, constraints)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [([], 3), ([(3, 1)], 1), ([(3, 2), (3, 1)], 1), ([(0, 3)], 3), ([(0, 1)], 3)],
    ids=["no edge", "before one", "before two", "after one", "among others"],
)
def test_a_new_component_is_inserted_as_late_as_possible(pairs, expected):
    """A new component is inserted before the first one that has to be after it."""
    assert expected == insertion_index(3, [Constraint(*pair, 3, "before") for pair in pairs])
