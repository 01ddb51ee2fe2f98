"""Components that record what they see, and warnings that were given."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ttl_core import LoopComponent, TrainTestLoop, hookimpl

ON_POINTS = [name for name in dir(LoopComponent) if name.startswith("on_")]


class Recorder(LoopComponent):
    """A recorder of values at some callback points.

    Args:
        points: the names of the points, separated by spaces.
        *values: names of loop variables, or functions of the loop.

    Attributes:
        seen: the value at each call, or a tuple if there are several.
    """

    def __init__(self, points: str, *values: str | Callable[[TrainTestLoop], Any]) -> None:
        self.values = values
        self.seen: list[Any] = []
        for point in points.split():
            setattr(self, point, self.record)

    def record(self, loop: TrainTestLoop) -> None:
        first, *rest = [
            getattr(loop, value) if isinstance(value, str) else value(loop) for value in self.values
        ]
        self.seen.append((first, *rest) if rest else first)


class PointRecorder(LoopComponent):
    """A recorder of the callback points that fire, except those around others.

    Attributes:
        points: their names, in order.
    """

    name = "recorder"

    def __init__(self) -> None:
        self.points: list[str] = []
        for point in ON_POINTS:
            setattr(self, point, self._recording(point))

    def _recording(self, point: str) -> Callable[[TrainTestLoop], None]:
        return lambda loop: self.points.append(point)


class LogRecorder(LoopComponent):
    """A recorder of what is logged.

    Attributes:
        logged: the metrics and the level of each call.
    """

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, Any], str]] = []

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        self.logged.append((metrics, level))


class StateRecorder(LoopComponent):
    """A recorder of the loop's state at each safe point.

    Args:
        **options: arguments of state_dict().

    Attributes:
        states: the states.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.states: list[dict[str, Any]] = []

    def on_safe_point(self, loop: TrainTestLoop) -> None:
        self.states.append(loop.state_dict(**self.options))


class AroundRecorder(LoopComponent):
    """A recorder of when it begins and ends to surround each run, epoch and end of a batch.

    Args:
        name: its name, with which the events begin.
        events: the list to which they are added.
    """

    def __init__(self, name: str = "around", events: list[str] | None = None) -> None:
        self.name = name
        self.events: list[str] = [] if events is None else events

    def _record(self, what: str) -> Any:
        self.events.append(f"{self.name} begins {what}")
        try:
            return (yield)
        finally:
            self.events.append(f"{self.name} ends {what}")

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Any:
        return (yield from self._record("run"))

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Any:
        return (yield from self._record("epoch"))

    @hookimpl(wrapper=True)
    def on_batch_end(self, loop: TrainTestLoop) -> Any:
        return (yield from self._record("batch"))


def recording_hook(**options: bool) -> Any:
    """Return a method with these options of hookimpl that adds its component to `loop.called`."""

    def plain(self: LoopComponent, loop: Any) -> None:
        loop.called.append(self)

    def wrapper(self: LoopComponent, loop: Any) -> Any:
        loop.called.append(self)
        return (yield)

    return hookimpl(**options)(wrapper if options.get("wrapper") else plain)


def warnings_of(action: Callable[[], object]) -> list[warnings.WarningMessage]:
    """Return all warnings that an action gives, also those that Python would not show again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return caught


def messages_of(action: Callable[[], object], category: type[Warning]) -> list[str]:
    """Return the texts of the warnings that an action gives, which have to be of one category."""
    caught = warnings_of(action)
    assert {category} >= {warning.category for warning in caught}
    return [str(warning.message) for warning in caught]
