"""Hints that depend on the configuration, hints of factories, and hints with a distribution."""

from __future__ import annotations

import pytest
from loops import make_component, make_loop, named
from recording import messages_of

from ttl_core import LoopComponent, OrderWarning, RequirementError, arrange, use


class Late(LoopComponent):
    """A component whose hints depend on its configuration."""

    def __init__(self, **hints):
        for hint, value in hints.items():
            setattr(self, hint, value)


def test_a_requirement_of_the_instance_counts():
    """What `__init__` sets is a hint like those of the class."""
    with pytest.raises(RequirementError, match=r"'late' .* requires 'a', which is not in the list"):
        make_loop(Late(requires="a"))


def test_an_order_of_the_instance_counts():
    """It gives a warning, chooses a place, and sorts."""
    a = named("a")
    (text,) = messages_of(lambda: make_loop(Late(after="a"), a), OrderWarning)
    assert "component 'late' (class" in text
    assert "declares after='a'" in text
    loop = make_loop(a)
    loop.components.add(Late(before=["a"]))
    assert ["late", "a"] == loop.components.names()
    late = Late(after="a")
    assert [a, late] == arrange([late, a])


def test_a_hint_of_the_instance_overrides_that_of_the_class():
    """An instance may require less than its class."""
    component = make_component(requires="a")
    component.requires = ()
    assert make_loop(component).components.names() == ["part"]


def test_a_wrong_hint_of_the_instance_is_refused():
    """It is checked like those of the class."""
    with pytest.raises(TypeError, match=r"'late' .* declares after='Not A Name', but"):
        make_loop(Late(after="Not A Name"))


SOURCE = """
from ttl_core import LoopComponent

class Late(LoopComponent):
    def __init__(self, after=()):
        self.after = after

class Made(LoopComponent):
    requires = "a"

def make_plain():
    return Made()

def make_free():
    return Made()

make_free.requires = ()

class A(LoopComponent): ...
"""
DECLARED = {
    "late": "acme_hints:Late",
    "plain": "acme_hints:make_plain",
    "free": "acme_hints:make_free",
    "a": "acme_hints:A",
}


@pytest.fixture
def installed(install_distribution):
    """Install components whose hints are in different places."""
    install_distribution("acme-hints", {"ttl.components": DECLARED}, SOURCE)


def test_a_component_by_name_may_have_hints_of_its_instance(installed):
    """They count as soon as it has been created."""
    loop = make_loop("a")
    (text,) = messages_of(lambda: loop.components.insert(0, use("late", after="a")), OrderWarning)
    assert "component 'late' (acme-hints 1.0) declares after='a'" in text


def test_a_factory_function_creates_components_with_hints(installed):
    """What the function does not declare, the class of its component does."""
    with pytest.raises(RequirementError, match=r"'plain' .* requires 'a'"):
        make_loop("plain")


def test_a_hint_of_a_factory_function_overrides_that_of_the_class(installed):
    """The function is what the entry point names."""
    assert ["free"] == make_loop("free").components.names()


# -- distribution/name ------------------------------------------------------------------------


def test_a_hint_may_name_the_distribution(installed):
    """It means the component of that distribution, however that is spelled."""
    for requires in "acme-hints/a", "Acme_Hints/a":
        assert make_loop("a", Late(requires=requires)).components.names() == ["a", "late"]
    with pytest.raises(RequirementError, match="requires 'other/a', which is not in the list"):
        make_loop("a", Late(requires="other/a"))


def test_a_hint_with_a_distribution_means_no_component_made_by_hand():
    """A component of a script is of no distribution."""
    with pytest.raises(RequirementError, match="requires 'acme/a'"):
        make_loop(named("a"), Late(requires="acme/a"))


def test_an_order_with_a_distribution_sorts_names(installed):
    """arrange() reads it for names, and for components."""
    late = Late(after="acme-hints/a")
    assert ["a", late] == arrange([late, "a"])


def test_a_hint_of_another_distribution_does_not_sort(installed):
    """A component of the same name of another distribution is not meant."""
    late = Late(after="other/a")
    assert [late, "a"] == arrange([late, "a"])


def test_components_of_a_list_are_sorted_by_the_names_of_their_entry_points(installed):
    """arrange() knows where a component came from, whatever its class is called."""
    late = Late(after="free")
    free = make_loop("free").components[0]
    assert [free, late] == arrange([late, free])
