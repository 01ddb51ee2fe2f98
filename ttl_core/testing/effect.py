"""Whether a component has an effect that shows in a run; where it has none, checks say little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ttl_core.components.component import LoopComponent
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.inside import attribute_facts
from ttl_core.testing.observer import Observer
from ttl_core.testing.outcome import Facts, outcome, random_facts
from ttl_core.testing.probes import is_named
from ttl_core.testing.under_test import ComponentUnderTest, seeded, under_test

_FIX = (
    "Configure it so that it acts within two epochs of three batches, by --config KEY=VALUE, or "
    "put what it needs before it, by --with NAME"
)


class _Calls(Observer):
    """The number of calls of the hooks of another component.

    Args:
        loop: the loop.
        watched: the component.

    Attributes:
        n: the number.
    """

    def __init__(self, loop: TrainTestLoop, watched: LoopComponent) -> None:
        self.n = 0
        self._loop = loop
        self._watched = watched

    def wrap_hookimpl(
        self, function: Callable[..., Any], *, component: str, point: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """Return what counts the calls of a hook of the watched component."""
        if not is_named(self._loop, component, self._watched):
            return function

        def call(*arguments: Any) -> Any:
            self.n += 1
            return function(*arguments)

        return call


def reason_for_doubt(kit: ComponentUnderTest) -> str:
    """Return why it is unclear what the checks of a component say; "" if it has acted.

    Args:
        kit: the kit of the component.
    """
    loop = kit._loop()
    it = under_test(loop)
    calls = _Calls(loop, it)
    log = kit._logged(loop)
    loop.components.insert(0, calls)
    before = _inside(it)
    with seeded():
        kit._run_all(loop)
        came_to = {**outcome(loop, log), **random_facts()}
    if not calls.n:
        return f"in runs of all kinds, none of its hooks was called. {_FIX}"
    if _inside(it) == before and came_to == kit._control_outcome():
        return (
            "runs of all kinds come to the same with it and without it, and its attributes stay "
            f"as they were. {_FIX}"
        )
    return ""


def _inside(component: LoopComponent) -> Facts:
    """Return the attributes of a component: plain values, and which objects the others are."""
    objects = {f"the object {name}": f"{id(value):#x}" for name, value in vars(component).items()}
    return objects | attribute_facts(component)
