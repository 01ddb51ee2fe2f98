"""B3: components that leave a list and join one again, and lists that are edited in turn."""

import gc
import weakref

import pytest
import torch
from loops import call_order, make_loop, named

from ttl_core import LoopComponent, RequirementError, TrainTestLoop, use

CONFIGURABLE = """
from ttl_core import LoopComponent

class Tilt(LoopComponent):
    def __init__(self, rho=1):
        self.rho = rho
"""


def test_a_component_that_joins_again_is_read_anew():
    """A method that was exchanged meanwhile is the one that is called."""
    loop = make_loop(named("a"))
    component = loop.components.pop("a")
    component.on_batch_end = lambda loop: "patched"
    loop.components.append(component)
    assert "patched" == call_order(loop)


def test_a_component_that_joins_again_is_enabled():
    """Leaving forgets that it was disabled, with or without a hook call in between."""
    loop = make_loop(named("a"))
    loop.components.disable("a")
    loop.components.append(loop.components.pop("a"))
    assert loop.components.is_enabled("a")


def test_a_component_that_joins_again_gets_the_free_name():
    """A number in its name is not kept when it is not needed any more."""
    loop = make_loop(LoopComponent(), LoopComponent())
    second = loop.components.pop()
    loop.components.pop()
    loop.components.append(second)
    assert ["loop-component"] == loop.components.names()


def test_a_swap_keeps_names_and_what_is_disabled():
    """A component that is out of the list in the middle of a swap has not left it."""
    loop = make_loop(*map(named, "ab"))
    components = loop.components
    components.disable("b")
    components[0], components[1] = components[1], components[0]
    assert (["b", "a"], "a") == (components.names(), call_order(loop))


def test_a_component_that_joins_in_the_middle_of_a_swap_takes_no_name():
    """The name of the one that is out for a moment is not free."""
    loop = make_loop(LoopComponent(), LoopComponent())
    first, second = loop.components
    loop.components[:] = [first, first, LoopComponent()]
    loop.components[1] = second
    assert ["loop-component", "loop-component#2", "loop-component#3"] == loop.components.names()


def test_an_assigned_list_renames_no_component_that_stays():
    """The one that stays keeps its name, whatever the order of the new list."""
    loop = make_loop(LoopComponent())
    stays = loop.components[0]
    newcomer = LoopComponent()
    loop.components = [newcomer, stays]
    assert ["loop-component#2", "loop-component"] == loop.components.names()


def test_two_lists_that_are_edited_in_turn_keep_their_names_unique():
    """Editing a list that was replaced does not change names in the one that replaced it."""
    loop = make_loop(LoopComponent())
    old = loop.components
    shared = old[0]
    loop.components = [LoopComponent(), LoopComponent(), shared]
    old.insert(0, LoopComponent())
    loop.components.append(LoopComponent())
    old.append(LoopComponent())
    for components in (old, loop.components):
        assert len(components) == len(set(components.names()))


def test_a_state_holds_each_component_of_lists_that_were_edited_in_turn():
    """No component's state takes the place of another's."""

    class Counter(LoopComponent):
        def __init__(self, n):
            self.n = n

        def on_safe_point(self, loop):
            loop.taken = loop.state_dict()

        def state_dict(self):
            return {"n": self.n}

        def load_state_dict(self, state):
            self.n = state["n"]

    loop = TrainTestLoop(torch.nn.Identity(), [Counter(0)], [0])
    old = loop.components
    loop.components = [Counter(1), old[0]]
    old.insert(0, Counter(2))
    loop.components.append(Counter(3))
    loop.train(1)
    assert [0, 1, 3] == sorted(state["n"] for state in loop.taken["components"].values())


def test_components_that_left_can_be_freed():
    """300 components that left are garbage, whether a hook was called since or not."""
    loop = make_loop()
    references = []
    for i in range(300):
        component = named("x")
        loop.components.append(component)
        if i % 2:
            call_order(loop)
        references.append(weakref.ref(component))
        del loop.components[-1], component
    gc.collect()
    assert [] == [reference for reference in references if reference() is not None]


def test_components_that_left_in_a_run_can_be_freed_after_it():
    """In a run they are kept for the note on an exception that they may still raise."""

    class Leaver(LoopComponent):
        def on_batch_end(self, loop):
            loop.components.remove(self)

    leaver = Leaver()
    reference = weakref.ref(leaver)
    loop = TrainTestLoop(torch.nn.Identity(), [leaver], [0])
    loop.train(1)
    del leaver
    gc.collect()
    assert reference() is None


def test_a_refused_component_does_not_stay_behind():
    """After an error, the same object is read again when it joins."""

    class Needy(LoopComponent):
        requires = "absent"

        def on_batch_end(self):
            return "old"

    needy = Needy()
    loop = make_loop()
    with pytest.raises(RequirementError):
        loop.components.append(needy)
    needy.on_batch_end = lambda: "new"
    loop.components.extend([named("absent"), needy])
    assert "absentnew" == call_order(loop)


def test_a_component_of_a_spec_keeps_key_name_and_configuration_in_another_loop(install_component):
    """What use("tilt", rho=2) created is the same component in every loop."""
    install_component("tilt", CONFIGURABLE)
    first = make_loop(use("tilt", name="mine", rho=2))
    component = first.components[0]

    class Needy(LoopComponent):
        requires = "tilt"

    second = make_loop(component, Needy())
    row = second.manifest()[0]
    assert ("mine", {"rho": 2}, "ttl-tilt") == (row["name"], row["config"], row["distribution"])


def test_a_component_of_a_spec_keeps_its_configuration_when_it_joins_again(install_component):
    """Leaving forgets what the list knew, not what it was created from."""
    install_component("tilt", CONFIGURABLE)
    loop = make_loop(use("tilt", rho=3))
    loop.components.append(loop.components.pop())
    assert {"rho": 3} == loop.manifest()[0]["config"]
