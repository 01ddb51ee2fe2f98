"""A recorded run: which callback points fire in it, and what the loop has set by then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from typing import Any

import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl
from ttl_core.hookspecs import POINTS
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
        known: the values of the loop variables at the last point, or before the run.
    """

    name = "recording"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed: dict[str, dict[str, None]] = {point: {} for point in POINTS}
        self._depth = 1
        self.known: dict[str, object] = {}
        for point in POINTS:
            wraps = point.startswith("around_")
            setattr(self, point, self._wrapper(point) if wraps else self._plain(point))

    def _plain(self, point: str) -> Callable[[TrainTestLoop], None]:
        def hook(loop: TrainTestLoop) -> None:
            self._record(point, loop)
            if point == "on_loss_compute":
                loop.log({"loss": 0.0})

        return hook

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
        now = _values(loop)
        self.changed[point] |= {name: None for name in now if now[name] != self.known[name]}
        self.known = now
        text = "  " * self._depth + point
        if point == "around_epoch":
            self.lines.append(f"{text:<28}{loop.epoch_desc}")
        elif point == "on_batch_begin":
            self.lines.append(f"{text:<28}batch {loop.batch_num}")
        else:
            self.lines.append(text)


def _values(loop: TrainTestLoop) -> dict[str, object]:
    """Return the variables that the loop sets: numbers and texts, of others the identity."""
    values = {name: getattr(loop, name, None) for name in _WATCHED}
    return {n: v if v is None or isinstance(v, int | str) else id(v) for n, v in values.items()}


@functools.cache
def record() -> Recording:
    """Return the record of a train(), a test() and a predict()."""
    recording = Recording()
    loop = TrainTestLoop(torch.nn.Identity(), [recording], [0, 1], [0])
    recording.known = _values(loop)
    recording.lines.append("loop.train(n_epochs=1)")
    loop.train(n_epochs=1)
    recording.lines.append("loop.test(...)")
    loop.test([0])
    recording.lines.append("loop.predict(...)")
    loop.predict([0], collect=False)
    return recording
