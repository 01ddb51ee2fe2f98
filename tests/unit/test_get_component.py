"""loop.components.get(): a component by class, or by name."""

from __future__ import annotations

from loops import make_loop, named

from ttl_core import LoopComponent


class Ema(LoopComponent):
    """A component."""


class FastEma(Ema):
    """A component of a subclass."""


def test_a_component_is_found_by_its_class():
    """That is the first one of the class, or of a subclass of it."""
    first, second = FastEma(), Ema()
    components = make_loop(named("a"), first, second).components
    assert first is components.get(Ema)
    assert first is components.get(FastEma)


def test_a_component_is_found_by_its_name():
    """That is the one that the name is of."""
    components = make_loop(Ema(), Ema()).components
    assert components[1] is components.get("ema#2")


def test_what_is_absent_is_none():
    """No error is raised for a class or a name that is not in the list."""
    components = make_loop(Ema()).components
    assert (None, None) == (components.get(FastEma), components.get("fast-ema"))
