"""loop.components: a list in every respect, that compares by identity and can be assigned."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
from loops import MainLoop, call_order, make_component, make_loop, named

from ttl_core import (
    ComponentRejectedError,
    DuplicateComponentError,
    LoopComponent,
    UnknownNameError,
)

x, y, z = (named(name) for name in "xyz")


@dataclass
class Equal(LoopComponent):
    """A component that is equal to others of its class, and cannot be hashed."""

    rate: float = 0.1

    def on_batch_end(self, loop):
        return id(self)


def edit(components, statement):
    """Run a statement that edits the list, which it calls c."""
    exec(statement, {"c": components, "x": x, "y": y, "z": z})


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("c.append(x)", "abcdx"),
        ("c.extend([x, y])", "abcdxy"),
        ("c.extend(iter([x, y]))", "abcdxy"),
        ("c.insert(1, x)", "axbcd"),
        ("c.insert(-1, x)", "abcxd"),
        ("c.insert(99, x)", "abcdx"),
        ("c.insert('b', x)", "axbcd"),
        ("c.remove(c[1])", "acd"),
        ("c.remove('b')", "acd"),
        ("c.pop()", "abc"),
        ("c.pop(0)", "bcd"),
        ("c.pop('b')", "acd"),
        ("del c[1]", "acd"),
        ("del c['b']", "acd"),
        ("del c[1:3]", "ad"),
        ("del c[::2]", "bd"),
        ("c[0] = x", "xbcd"),
        ("c[-1] = x", "abcx"),
        ("c['b'] = x", "axcd"),
        ("c[1:3] = [x, y, z]", "axyzd"),
        ("c[:0] = iter([x])", "xabcd"),
        ("c[::2] = [x, y]", "xbyd"),
        ("c[:] = c[::-1]", "dcba"),
        ("c[0], c[3] = c[3], c[0]", "dbca"),
        ("c.append(c.pop('a'))", "bcda"),
        ("c.sort(key=lambda component: component.name, reverse=True)", "dcba"),
        ("c.sort(key=lambda component: component.name == 'b')", "acdb"),
        ("c.reverse()", "dcba"),
        ("c.clear()", ""),
        ("c += [x, y]", "abcdxy"),
        ("c *= 1", "abcd"),
        ("c *= 0", ""),
    ],
)
def test_an_edit_changes_what_is_called_and_in_which_order(loop, statement, expected):
    """The list is the call order from the next hook call on."""
    call_order(loop)
    edit(loop.components, statement)
    assert expected == call_order(loop)
    assert list(expected) == loop.components.names()


def test_an_edit_does_not_change_the_hook_call_in_which_it_is_made():
    """A hook call reaches the components that were in the list when it began."""
    leaving = make_component(on_batch_end=lambda loop: loop.components.clear())
    loop = make_loop(leaving, named("a"))
    assert (["a"], []) == (
        loop.hook.on_batch_end(loop=loop),
        loop.hook.on_batch_end(loop=loop),
    )


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("c.append(5)", ComponentRejectedError),
        ("c.extend([x, 5])", ComponentRejectedError),
        ("c.insert(0, 5)", ComponentRejectedError),
        ("c.insert('x', x)", UnknownNameError),
        ("c.insert(1.0, x)", TypeError),
        ("c[0] = 5", ComponentRejectedError),
        ("c[9] = x", IndexError),
        ("c['x'] = x", UnknownNameError),
        ("c[0:2] = [x, 5]", ComponentRejectedError),
        ("c[0:2] = x", ComponentRejectedError),
        ("c[::2] = [x]", ValueError),
        ("del c[9]", IndexError),
        ("del c['x']", UnknownNameError),
        ("c.pop(9)", IndexError),
        ("c.pop('x')", UnknownNameError),
        ("c.remove(x)", ValueError),
        ("c.remove('x')", ValueError),
        ("c.sort(key=lambda component: 1 // (component.name != 'c'))", ZeroDivisionError),
        ("c += [x, 'Not A Name']", UnknownNameError),
        ("c *= 1.5", TypeError),
    ],
)
def test_a_refused_edit_changes_nothing(loop, statement, error):
    """After an edit that raised an error, the same components are called as before."""
    with pytest.raises(error):
        edit(loop.components, statement)
    assert "abcd" == call_order(loop)
    assert list("abcd") == loop.components.names()


def test_popping_from_an_empty_list_is_refused():
    """pop() of an empty list is an IndexError, as for every list."""
    with pytest.raises(IndexError):
        make_loop().components.pop()


def test_it_is_a_list(components):
    """loop.components is an instance of list."""
    assert isinstance(components, list)


def test_it_has_length_and_order(components):
    """len, iteration, reversed and slices work as for every list."""
    assert 4 == len(components)
    assert "abcd" == "".join(component.name for component in components)
    assert "dcba" == "".join(component.name for component in reversed(components))
    assert "bd" == "".join(component.name for component in components[1::2])


def test_it_equals_a_list_of_the_same_components(components):
    """It can be compared with plain lists by ==."""
    assert list(components) == components
    assert list(components)[:-1] != components


@pytest.mark.parametrize("expression", ["c.copy()", "copy(c)", "c[:]", "c + [x]", "c * 1"])
def test_copies_slices_and_sums_are_plain_lists(components, expression):
    """Copies, slices and sums belong to no loop, so that editing them changes nothing."""
    assert list is type(eval(expression, {"c": components, "copy": copy.copy, "x": x}))


def test_pop_returns_the_removed_component(components):
    """pop() returns the component, by index or by name."""
    a, *_, d = components
    assert (d, a) == (components.pop(), components.pop("a"))


def test_equal_components_are_both_called():
    """Each of two equal components is called."""
    first, second = Equal(), Equal()
    loop = make_loop(first, second)
    assert [id(first), id(second)] == loop.hook.on_batch_end(loop=loop)


def test_equal_components_are_distinguished():
    """index(), `in`, count() and remove() compare by identity."""
    first, second = Equal(), Equal()
    components = make_loop(first, second).components
    assert 1 == components.index(second)
    assert 1 == components.count(second)
    assert Equal() not in components
    components.remove(second)
    assert components[0] is first


def test_a_component_that_equals_everything_is_only_itself():
    """The method __eq__ of a component is not used."""

    class Agreeing(LoopComponent):
        def __eq__(self, other):
            return True

        __hash__ = None

    components = make_loop(Agreeing()).components
    assert x not in components


def test_unhashable_components_can_be_disabled():
    """A component that cannot be hashed is disabled like any other."""
    first, second = Equal(), Equal()
    loop = make_loop(first, second)
    loop.components.disable(first)
    assert [id(second)] == loop.hook.on_batch_end(loop=loop)


@pytest.mark.parametrize("statement", ["c.append(c[0])", "c *= 2", "c[1] = c[0]"])
def test_the_same_object_twice_is_an_error_at_the_next_hook_call(loop, statement):
    """A list may hold a component twice, but cannot be called then."""
    edit(loop.components, statement)
    with pytest.raises(DuplicateComponentError, match=r"component 'a' .* is in the list twice"):
        call_order(loop)


def test_the_same_object_twice_can_be_fixed(loop):
    """After one of the two is removed, the list can be called again."""
    loop.components.append(loop.components[0])
    with pytest.raises(DuplicateComponentError):
        call_order(loop)
    del loop.components[0]
    assert "bcda" == call_order(loop)


# -- assigning a list -----------------------------------------------------------------------


def test_a_list_can_be_assigned(loop):
    """Assigning to loop.components changes which components are called."""
    loop.components = [x, loop.components["b"]]
    assert "xb" == call_order(loop)


def test_a_refused_list_changes_nothing(loop):
    """After something else than components was assigned, the old list is still there."""
    with pytest.raises(ComponentRejectedError):
        loop.components = [x, 5]
    assert "abcd" == call_order(loop)


def test_an_edited_list_can_be_assigned_to_itself(loop):
    """`loop.components += [...]` is an edit and an assignment."""
    loop.components += [x]
    assert "abcdx" == call_order(loop)


def test_assigning_a_list_renames_no_component_that_stays():
    """A new component before it does not take a component's name, in a new list either."""
    loop = make_loop(MainLoop())
    loop.components = [MainLoop(), *loop.components]
    assert ["main-loop#2", "main-loop"] == loop.components.names()


def test_assigning_a_list_keeps_components_disabled(loop):
    """A disabled component that stays in the list stays disabled."""
    loop.components.disable("b")
    loop.components = loop.components[:3]
    assert "ac" == call_order(loop)


@pytest.mark.parametrize("is_called_between", [False, True])
def test_a_saved_list_can_be_assigned_back(is_called_between):
    """A saved list that is assigned again has its names and its disabled components."""
    loop = make_loop(MainLoop(), MainLoop(), MainLoop())
    loop.components.disable("main-loop#2")
    del loop.components["main-loop"]
    saved, loop.components = loop.components, [x]
    if is_called_between:
        call_order(loop)
    loop.components = saved
    assert ["main-loop#2", "main-loop#3"] == loop.components.names()
    assert "main-loop#3" == call_order(loop)


def test_editing_a_list_that_was_replaced_changes_nothing(loop):
    """Only the present list of the loop is called."""
    saved, loop.components = loop.components, [x]
    saved.append(y)
    assert "x" == call_order(loop)


def test_the_list_of_another_loop_can_be_assigned(loop):
    """Two loops may have the same components, and each has its own list."""
    other = make_loop()
    other.components = loop.components
    loop.components.clear()
    assert ("abcd", "") == (call_order(other), call_order(loop))
