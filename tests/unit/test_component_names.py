"""Components by name: how they get their names, and how they are looked up."""

from __future__ import annotations

import pytest
from loops import MainLoop, make_loop, named

from ttl_core import UnknownNameError

x = named("x")


def test_components_are_looked_up_by_name(components):
    """An index and a name give the same component."""
    assert components[1] is components["b"]


@pytest.mark.parametrize("item", ["b", 1], ids=["name", "component"])
def test_index_takes_a_name_or_a_component(components, item):
    """index() finds a component given itself or its name."""
    assert 1 == components.index(item if item == "b" else components[item])


def test_index_searches_a_range(components):
    """index() takes the same bounds as that of a list."""
    assert 1 == components.index("b", 1, 2)
    with pytest.raises(ValueError, match="no component 'b'"):
        components.index("b", 2)


def test_membership_takes_a_name_or_a_component(components):
    """`in` works with names and components; anything else is not in the list."""
    asked = ["b", "x", components[1], x, 5, None]
    assert [True, False, True, False, False, False] == [item in components for item in asked]


def test_count_takes_a_name_or_a_component(components):
    """count() returns how often a component is in the list."""
    asked = ["b", "x", components[1], x]
    assert [1, 0, 1, 0] == [components.count(item) for item in asked]


def test_an_unknown_name_is_explained():
    """The error suggests the nearest name and lists the names in the list."""
    components = make_loop(named("metrics"), named("progress")).components
    with pytest.raises(UnknownNameError) as caught:
        components["metric"]
    expected = (
        "no component 'metric' is in the list. Did you mean 'metrics'? It holds: metrics, progress"
    )
    assert expected == str(caught.value)


# -- how components get their names ---------------------------------------------------------


def test_by_default_the_name_is_that_of_the_class():
    """A component is named by its class, in kebab-case."""
    assert ["main-loop"] == make_loop(MainLoop()).components.names()


def test_the_name_attribute_comes_before_the_class():
    """A component may have an attribute `name`, which is used instead."""
    assert ["mine"] == make_loop(named("mine")).components.names()


def test_later_components_of_a_name_get_a_number():
    """Names are unique: the second one gets #2."""
    components = make_loop(MainLoop(), MainLoop(), MainLoop()).components
    assert ["main-loop", "main-loop#2", "main-loop#3"] == components.names()


def test_the_repr_of_the_list_has_its_names():
    """repr(loop.components) shows the names in order."""
    assert "[main-loop, a, main-loop#2]" == repr(
        make_loop(MainLoop(), named("a"), MainLoop()).components
    )


def test_a_new_component_gets_the_number_at_any_position():
    """A component keeps its name when another one is inserted before it."""
    components = make_loop(MainLoop()).components
    components.insert(0, MainLoop())
    assert ["main-loop#2", "main-loop"] == components.names()


@pytest.mark.parametrize("statement", ["c.reverse()", "c[0], c[1] = c[1], c[0]", "c[:] = c[::-1]"])
def test_names_stay_with_their_components(statement):
    """A component that stays in the list keeps its name at any position."""
    components = make_loop(MainLoop(), MainLoop()).components
    exec(statement, {"c": components})
    assert ["main-loop#2", "main-loop"] == components.names()


def test_names_stay_when_others_are_removed():
    """The second component is still #2 after the first one was removed."""
    components = make_loop(MainLoop(), MainLoop()).components
    del components[0]
    assert ["main-loop#2"] == components.names()


def test_a_free_name_is_given_again():
    """A new component gets the name of one that was removed."""
    components = make_loop(MainLoop(), MainLoop()).components
    del components[0]
    components.append(MainLoop())
    assert ["main-loop#2", "main-loop"] == components.names()


def test_a_replacement_gets_the_name_of_the_replaced_component():
    """A component that replaces another one of its class gets its name too."""
    components = make_loop(MainLoop(), MainLoop()).components
    components["main-loop"] = MainLoop()
    assert ["main-loop", "main-loop#2"] == components.names()


def test_a_component_that_is_added_again_gets_a_number_if_its_name_was_given():
    """Between two hook calls a component may be removed, lose its name, and be added again."""
    old, new = MainLoop(), MainLoop()
    loop = make_loop(old)
    loop.hook.on_batch_end(loop=loop)
    loop.components[:] = [new]
    loop.components.append(old)
    assert ["main-loop", "main-loop#2"] == loop.hook.on_batch_end(loop=loop)


def test_a_name_is_fixed_while_in_the_list():
    """Changing the attribute of a component that has joined does not rename it."""
    component = named("before")
    components = make_loop(component).components
    component.name = "after"
    assert ["before"] == components.names()


def test_a_component_is_asked_for_by_its_name_in_the_list():
    """name_of() is what index() is for positions; one that is not in the list is an error."""
    loop = make_loop(named("a"), named("a"))
    assert ["a", "a#2"] == [loop.components.name_of(component) for component in loop.components]
    with pytest.raises(UnknownNameError, match=r"no component .* is in the list"):
        loop.components.name_of(x)
