"""A recorded run: which callback points fire in it, and what the loop has set by then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import Any

from ttl_core import LoopComponent, TrainTestLoop, hookimpl
from ttl_core.hookspecs import POINTS
from ttl_core.testing import ComponentConformance, Step
from ttl_core.variables.declarations import VARIABLES

_WATCHED = [
    variable.name
    for variable in VARIABLES
    if variable.set_by.startswith("the loop") and "is created" not in variable.set_by
]


class Recording(LoopComponent):
    """A record of all callback points, in the order in which they fire.

    Attributes:
        lines: a line for each call, indented by what surrounds it, with phase and batch.
        changed: for each point, the variables that the loop had set since the point before it,
            at any call.
    """

    name = "recording"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed: dict[str, dict[str, None]] = {point: {} for point in POINTS}
        self._depth = 1
        self._before: dict[str, object] = {}
        for point in POINTS:
            wraps = point.startswith("around_")
            setattr(self, point, self._wrapper(point) if wraps else self._plain(point))

    def _plain(self, point: str) -> Callable[[TrainTestLoop], None]:
        return lambda loop: self._record(point, loop)

    def _wrapper(self, point: str) -> Callable[[TrainTestLoop], Generator[None, Any, Any]]:
        @hookimpl(wrapper=True)
        def around(loop: TrainTestLoop) -> Generator[None, Any, Any]:
            self._record(point, loop)
            self._depth += 1
            result = yield
            self._depth -= 1
            return result

        return around

    def _record(self, point: str, loop: TrainTestLoop) -> None:
        now = {name: _value(loop, name) for name in _WATCHED}
        self.changed[point] |= {n: None for n in now if now[n] != self._before.get(n)}
        self._before = now
        text = "  " * self._depth + point
        if point == "around_epoch":
            self.lines.append(f"{text:<28}{loop.epoch_desc}")
        elif point == "on_batch_begin":
            self.lines.append(f"{text:<28}batch {loop.batch_num}")
        else:
            self.lines.append(text)


def _value(loop: TrainTestLoop, name: str) -> object:
    """Return what stands for the value of a loop variable: numbers and texts, or its identity."""
    try:
        value = getattr(loop, name)
    except AttributeError:
        return None
    return value if value is None or isinstance(value, int | str) else id(value)


@functools.cache
def record() -> Recording:
    """Return the record of a train(), a test() and a predict()."""
    recording = Recording()
    data = ComponentConformance.make_data(2)
    loop = TrainTestLoop(ComponentConformance.make_model(), [recording, Step()], data, data[:1])
    recording.lines.append("loop.train(n_epochs=1)")
    loop.train(n_epochs=1)
    recording.lines.append("loop.test(...)")
    loop.test(data[:1])
    recording.lines.append("loop.predict(...)")
    loop.predict(data[:1])
    return recording
