"""Probes: components that act at chosen moments of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ttl_core.components.component import LoopComponent
from ttl_core.hookspecs import POINTS, hookimpl
from ttl_core.loop import TrainTestLoop

MOMENTS = tuple(point for point in POINTS if point != "on_exception")
"""When a probe may act: in each hook, and before what an around-hook surrounds."""


class Probe(LoopComponent):
    """A component that calls a function at some moments of a run.

    Args:
        act: takes the loop and the name of the moment.
        *moments: when to act.
    """

    def __init__(self, act: Callable[[TrainTestLoop, str], object], *moments: str) -> None:
        self.act = act
        for point in moments:
            hook = self._wrapper(point) if point.startswith("around_") else self._plain(point)
            setattr(self, point, hook)

    def _plain(self, point: str) -> Callable[[TrainTestLoop], None]:
        def hook(loop: TrainTestLoop) -> None:
            self.act(loop, point)

        return hook

    def _wrapper(self, point: str) -> Callable[[TrainTestLoop], Generator[None, Any, Any]]:
        @hookimpl(wrapper=True)
        def hook(loop: TrainTestLoop) -> Generator[None, Any, Any]:
            self.act(loop, point)
            return (yield)

        return hook


class PlannedError(Exception):
    """The exception that probes raise."""
