"""loop.components: a list in every respect, that knows its components by name."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest

from ttl_core import (
    ComponentRejectedError,
    DuplicateComponentError,
    LoopComponent,
    TrainTestLoop,
    UnknownNameError,
)


class Named(LoopComponent):
    """A component with a name, that says it when called."""

    def __init__(self, name):
        self.name = name

    def on_batch_end(self, loop):
        return self.name


class MainLoop(LoopComponent):
    """A component without a name."""

    def on_batch_end(self, loop):
        return loop.components.names()[loop.components.index(self)]


x, y, z = (Named(name) for name in "xyz")


@dataclass
class Equal(LoopComponent):
    """A component that is equal to others of its class, and cannot be hashed."""

    rate: float = 0.1

    def on_batch_end(self, loop):
        return id(self)


@pytest.fixture
def loop(loop_of) -> TrainTestLoop:
    """Return a loop of the components a, b, c and d."""
    return loop_of(*(Named(name) for name in "abcd"))


@pytest.fixture
def components(loop):
    """Return the list of the components a, b, c and d."""
    return loop.components


def called(loop):
    """Return who is called at the next hook call, as one word."""
    return "".join(loop.hook.on_batch_end(loop=loop))


def edit(components, statement):
    """Run a statement that edits the list, which it calls c."""
    exec(statement, {"c": components, "x": x, "y": y, "z": z})


# -- operations of a list -------------------------------------------------------------------


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
def test_an_edit_changes_who_is_called_in_which_order(loop, statement, expected):
    """The list is the call order from the next hook call on."""
    called(loop)
    edit(loop.components, statement)
    assert expected == called(loop)
    assert list(expected) == loop.components.names()


def test_an_edit_does_not_change_the_hook_call_it_is_made_in(at, loop_of):
    """The call that is under way reaches those who were there when it began."""
    leaving = at(on_batch_end=lambda loop: loop.components.clear())
    loop = loop_of(leaving, Named("a"))
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
    """After an edit that raised, the same components are called as before."""
    with pytest.raises(error):
        edit(loop.components, statement)
    assert "abcd" == called(loop)
    assert list("abcd") == loop.components.names()


def test_popping_from_an_empty_list_is_refused(loop_of):
    """An empty list has nothing to pop."""
    with pytest.raises(IndexError):
        loop_of().components.pop()


def test_it_is_a_list(components):
    """Whoever asks for a list gets one."""
    assert isinstance(components, list)


def test_it_has_length_and_order(components):
    """len, iteration, reversed and slices work as for every list."""
    assert 4 == len(components)
    assert "abcd" == "".join(component.name for component in components)
    assert "dcba" == "".join(component.name for component in reversed(components))
    assert "bd" == "".join(component.name for component in components[1::2])


def test_it_equals_a_list_of_the_same_components(components):
    """== compares with plain lists too."""
    assert list(components) == components
    assert list(components)[:-1] != components


@pytest.mark.parametrize("expression", ["c.copy()", "copy(c)", "c[:]", "c + [x]", "c * 1"])
def test_what_is_made_of_it_is_a_plain_list(components, expression):
    """Copies, slices and sums belong to no loop, so that editing them changes nothing."""
    assert list is type(eval(expression, {"c": components, "copy": copy.copy, "x": x}))


def test_pop_returns_what_it_took_out(components):
    """By index or name, pop gives the component."""
    a, *_, d = components
    assert (d, a) == (components.pop(), components.pop("a"))


# -- look-up by name ------------------------------------------------------------------------


def test_components_are_looked_up_by_name(components):
    """An index and a name give the same component."""
    assert components[1] is components["b"]


@pytest.mark.parametrize("item", ["b", 1], ids=["name", "component"])
def test_index_takes_a_name_or_a_component(components, item):
    """index() finds a component given itself or its name."""
    assert 1 == components.index(item if item == "b" else components[item])


def test_index_looks_in_a_range(components):
    """index() begins and ends where a list's does."""
    assert 1 == components.index("b", 1, 2)
    with pytest.raises(ValueError, match="no component 'b'"):
        components.index("b", 2)


def test_membership_takes_a_name_or_a_component(components):
    """`in` works with names and components; other things are just not there."""
    asked = ["b", "x", components[1], x, 5, None]
    assert [True, False, True, False, False, False] == [item in components for item in asked]


def test_count_takes_a_name_or_a_component(components):
    """count() tells how often somebody stands in the list."""
    asked = ["b", "x", components[1], x]
    assert [1, 0, 1, 0] == [components.count(item) for item in asked]


def test_an_unknown_name_is_explained(loop_of):
    """The error offers the nearest name and tells who is there."""
    components = loop_of(Named("metrics"), Named("progress")).components
    with pytest.raises(UnknownNameError) as caught:
        components["metric"]
    expected = (
        "no component 'metric' is in the list. Did you mean 'metrics'? It holds: metrics, progress"
    )
    assert expected == str(caught.value)


# -- names ----------------------------------------------------------------------------------


def test_without_a_name_it_is_that_of_the_class(loop_of):
    """The name of the class in kebab-case is what a component is called by."""
    assert ["main-loop"] == loop_of(MainLoop()).components.names()


def test_the_name_attribute_comes_before_the_class(loop_of):
    """A component may choose its own name."""
    assert ["mine"] == loop_of(Named("mine")).components.names()


def test_later_components_of_a_name_get_a_number(loop_of):
    """Names are unique: the second one gets #2."""
    components = loop_of(MainLoop(), MainLoop(), MainLoop()).components
    assert ["main-loop", "main-loop#2", "main-loop#3"] == components.names()


def test_the_list_prints_its_names(loop_of):
    """print(loop.components) shows who is called in which order."""
    assert "[main-loop, a, main-loop#2]" == repr(
        loop_of(MainLoop(), Named("a"), MainLoop()).components
    )


def test_a_newcomer_gets_the_number_wherever_it_enters(loop_of):
    """Who is there already keeps its name when another comes before it."""
    components = loop_of(MainLoop()).components
    components.insert(0, MainLoop())
    assert ["main-loop#2", "main-loop"] == components.names()


@pytest.mark.parametrize("statement", ["c.reverse()", "c[0], c[1] = c[1], c[0]", "c[:] = c[::-1]"])
def test_names_stay_with_their_components(loop_of, statement):
    """Whoever stays in the list keeps its name at any place."""
    components = loop_of(MainLoop(), MainLoop()).components
    edit(components, statement)
    assert ["main-loop#2", "main-loop"] == components.names()


def test_names_stay_when_others_leave(loop_of):
    """The second one is #2 also when the first one is gone."""
    components = loop_of(MainLoop(), MainLoop()).components
    del components[0]
    assert ["main-loop#2"] == components.names()


def test_a_free_name_is_given_again(loop_of):
    """A newcomer gets the name of one who has left."""
    components = loop_of(MainLoop(), MainLoop()).components
    del components[0]
    components.append(MainLoop())
    assert ["main-loop#2", "main-loop"] == components.names()


def test_a_replaced_component_leaves_its_name(loop_of):
    """Who takes the place of another of its class takes its name too."""
    components = loop_of(MainLoop(), MainLoop()).components
    components["main-loop"] = MainLoop()
    assert ["main-loop", "main-loop#2"] == components.names()


def test_who_comes_back_after_another_took_its_name_gets_a_number(loop_of):
    """Between two hook calls a component may leave, lose its name, and come back."""
    old, new = MainLoop(), MainLoop()
    loop = loop_of(old)
    loop.hook.on_batch_end(loop=loop)
    loop.components[:] = [new]
    loop.components.append(old)
    assert ["main-loop", "main-loop#2"] == loop.hook.on_batch_end(loop=loop)


def test_a_name_is_fixed_while_in_the_list(loop_of):
    """Changing the attribute of a component that has joined renames nobody."""
    component = Named("before")
    components = loop_of(component).components
    component.name = "after"
    assert ["before"] == components.names()


# -- identity -------------------------------------------------------------------------------


def test_equal_components_are_different_ones(loop_of):
    """Each of two equal components is called."""
    first, second = Equal(), Equal()
    loop = loop_of(first, second)
    assert [id(first), id(second)] == loop.hook.on_batch_end(loop=loop)


def test_equal_components_are_told_apart(loop_of):
    """index, in, count and remove go by identity."""
    first, second = Equal(), Equal()
    components = loop_of(first, second).components
    assert 1 == components.index(second)
    assert 1 == components.count(second)
    assert Equal() not in components
    components.remove(second)
    assert components[0] is first


def test_a_component_that_equals_everything_is_one_of_its_own(loop_of):
    """A component's own == is not asked."""

    class Agreeing(LoopComponent):
        def __eq__(self, other):
            return True

        __hash__ = None

    components = loop_of(Agreeing()).components
    assert x not in components


def test_unhashable_components_can_be_switched(loop_of):
    """A component that cannot be hashed is disabled like any other."""
    first, second = Equal(), Equal()
    loop = loop_of(first, second)
    loop.components.disable(first)
    assert [id(second)] == loop.hook.on_batch_end(loop=loop)


@pytest.mark.parametrize("statement", ["c.append(c[0])", "c *= 2", "c[1] = c[0]"])
def test_the_same_object_twice_is_an_error_at_the_next_hook_call(loop, statement):
    """The list may hold a component twice for a moment, but not be called like that."""
    edit(loop.components, statement)
    with pytest.raises(DuplicateComponentError, match=r"component 'a' .* stands twice"):
        called(loop)


def test_the_same_object_twice_can_be_mended(loop):
    """Once one of the two is out, the loop goes on."""
    loop.components.append(loop.components[0])
    with pytest.raises(DuplicateComponentError):
        called(loop)
    del loop.components[0]
    assert "bcda" == called(loop)


# -- assigning a list -----------------------------------------------------------------------


def test_a_list_can_be_assigned(loop):
    """Assigning to loop.components changes who is called."""
    loop.components = [x, loop.components["b"]]
    assert "xb" == called(loop)


def test_a_refused_list_changes_nothing(loop):
    """Assigning something that holds no components leaves the old list in place."""
    with pytest.raises(ComponentRejectedError):
        loop.components = [x, 5]
    assert "abcd" == called(loop)


def test_an_edited_list_can_be_assigned_to_itself(loop):
    """`loop.components += [...]` is an edit and an assignment."""
    loop.components += [x]
    assert "abcdx" == called(loop)


def test_assigning_a_list_renames_nobody_who_stays(loop_of):
    """A newcomer before it does not take a component's name, in a new list either."""
    loop = loop_of(MainLoop())
    loop.components = [MainLoop(), *loop.components]
    assert ["main-loop#2", "main-loop"] == loop.components.names()


def test_assigning_a_list_keeps_who_is_disabled(loop):
    """A component that stays stays off."""
    loop.components.disable("b")
    loop.components = loop.components[:3]
    assert "ac" == called(loop)


@pytest.mark.parametrize("is_called_between", [False, True])
def test_a_saved_list_can_be_assigned_back(loop_of, is_called_between):
    """The list that was put aside comes back with its names and who was disabled."""
    loop = loop_of(MainLoop(), MainLoop(), MainLoop())
    loop.components.disable("main-loop#2")
    del loop.components["main-loop"]
    saved, loop.components = loop.components, [x]
    if is_called_between:
        called(loop)
    loop.components = saved
    assert ["main-loop#2", "main-loop#3"] == loop.components.names()
    assert "main-loop#3" == called(loop)


def test_editing_a_list_that_was_put_aside_changes_nothing(loop):
    """Only the list of the loop is called."""
    saved, loop.components = loop.components, [x]
    saved.append(y)
    assert "x" == called(loop)


def test_the_list_of_another_loop_is_taken_over_as_it_is(loop, loop_of):
    """Two loops may have the same components, and each has a list of its own."""
    other = loop_of()
    other.components = loop.components
    loop.components.clear()
    assert ("abcd", "") == (called(other), called(loop))


# -- on and off -----------------------------------------------------------------------------


def test_a_disabled_component_is_not_called(loop):
    """disable() takes names and components, and several of them."""
    loop.components.disable("a", loop.components[2])
    assert "bd" == called(loop)


def test_a_disabled_component_stays_in_the_list(loop):
    """disable() changes neither place nor name."""
    loop.components.disable("a")
    assert list("abcd") == loop.components.names()


def test_an_enabled_component_is_called_at_its_old_place(loop):
    """enable() is the opposite of disable()."""
    loop.components.disable("b")
    called(loop)
    loop.components.enable("b")
    assert "abcd" == called(loop)


def test_a_disabled_component_moves_like_any_other(loop):
    """Who is switched on again is called at the place that it has then."""
    loop.components.disable("a")
    loop.components.reverse()
    loop.components.enable("a")
    assert "dcba" == called(loop)


def test_is_enabled_tells_who_is_on(components):
    """is_enabled() takes a name or a component."""
    components.disable("a")
    assert [False, True] == [components.is_enabled("a"), components.is_enabled(components[1])]


def test_switching_an_unknown_name_switches_nobody(loop):
    """A refused disable() changes nothing."""
    with pytest.raises(UnknownNameError, match="no component 'x'"):
        loop.components.disable("a", "x")
    assert "abcd" == called(loop)


def test_components_can_be_off_for_a_while(loop):
    """disabled() switches off for the length of its block."""
    with loop.components.disabled("a", "b"):
        during = called(loop)
    assert ("cd", "abcd") == (during, called(loop))


def test_components_come_on_again_when_a_block_fails(loop):
    """disabled() switches on again on exceptions."""
    with pytest.raises(ZeroDivisionError), loop.components.disabled("a"):
        raise ZeroDivisionError
    assert "abcd" == called(loop)


def test_who_was_off_before_stays_off(loop):
    """disabled() does not switch on what it has not switched off."""
    loop.components.disable("a")
    with loop.components.disabled("a", "b"):
        pass
    assert "bcd" == called(loop)


def test_who_left_during_a_block_can_still_come_on(loop):
    """disabled() ends well when its component has been taken out meanwhile."""
    with loop.components.disabled("a"):
        a = loop.components.pop("a")
        called(loop)
    loop.components.append(a)
    assert "bcda" == called(loop)


def test_switching_takes_effect_at_the_next_hook_call(at, loop_of):
    """The call in which a component is disabled still reaches it."""
    loop = loop_of(at(on_batch_end=lambda loop: loop.components.disable("a")), Named("a"))
    assert ("a", "") == (called(loop), called(loop))


def test_swapping_by_name_is_refused_where_a_name_stands_twice(loop_of):
    """In the middle of a swap a name says no more which place it means, and that is an error."""
    loop = loop_of(MainLoop(), LoopComponent())
    components = loop.components
    with pytest.raises(DuplicateComponentError, match="use indices, or move"):
        components["main-loop"], components["loop-component"] = components[1], components[0]
