"""Timing of calls within calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from threading import get_ident
from time import perf_counter
from typing import Any

OUTSIDE = "(data and loop)"


@dataclass
class TimerRow:
    """The time that one component has spent in one callback point.

    Attributes:
        component: the name of the component in the list.
        point: the callback point; "" for all that is in no component.
        count: how often it was called.
        seconds: how long that took in all, without what other components did within it.
        share: what part of the run that is, from 0 to 1.
    """

    component: str
    point: str
    count: int = 0
    seconds: float = 0.0
    share: float = 0.0

    @property
    def mean(self) -> float:
        """The mean of one call, in microseconds."""
        return 1e6 * self.seconds / self.count if self.count else 0.0


class Timing:
    """The time of calls within calls: each without those within it that are timed too.

    Args:
        wait: is called before each look at the clock, to wait for a device; None for nothing.
    """

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self.rows: dict[tuple[str, str], TimerRow] = {}
        self._inner = 0.0  # seconds in the timed calls within the one under way
        self._thread = get_ident()
        self._now: Callable[[], float] = perf_counter
        if wait is not None:
            self._now = lambda: (wait(), perf_counter())[1]

    def reset(self) -> None:
        """Begin a new run, in this thread; calls in other threads are not timed."""
        self._thread = get_ident()
        self._inner = 0.0
        for row in self.rows.values():  # which timed functions hold
            row.count, row.seconds, row.share = 0, 0.0, 0.0

    def row(self, component: str, point: str) -> TimerRow:
        """Return the row of a component at a point, a new one if there is none."""
        return self.rows.setdefault((component, point), TimerRow(component, point))

    def timed(self, row: TimerRow, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does what another one does, and adds its time to a row."""

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            row.count += 1
            return self.measure(row, function, *arguments)

        return call

    def timed_wrapper(self, row: TimerRow, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same for a function that returns a generator: what it surrounds is not it."""

        @functools.wraps(function)
        def call(*arguments: Any) -> TimedGenerator:
            row.count += 1
            return TimedGenerator(function(*arguments), self, row)

        return call

    def measure(self, row: TimerRow, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, and add its time to a row."""
        if get_ident() != self._thread:
            return function(*arguments)
        outer, self._inner = self._inner, 0.0
        begin = self._now()
        try:
            return function(*arguments)
        finally:
            took = self._now() - begin
            row.seconds += took - self._inner
            self._inner = outer + took


class TimedGenerator:
    """A generator whose parts, before and after its yield, are timed.

    Args:
        generator: the generator.
        timing: what times it.
        row: where its time is added.
    """

    def __init__(self, generator: Generator[None, Any, Any], timing: Timing, row: TimerRow) -> None:
        self.close = generator.close
        self.gi_code: Any = getattr(generator, "gi_code", None)  # for errors of the loop
        self._generator = generator
        self._measure = functools.partial(timing.measure, row)

    def __iter__(self) -> TimedGenerator:
        return self

    def __next__(self) -> None:
        self._measure(next, self._generator)

    def send(self, value: Any) -> None:
        """Resume the generator with a value."""
        self._measure(self._generator.send, value)

    def throw(self, exception: BaseException) -> None:
        """Resume the generator with an exception."""
        self._measure(self._generator.throw, exception)


def sorted_rows(rows: Iterable[TimerRow], total: float) -> list[TimerRow]:
    """Return the rows that were called, the longest first, with their shares of a run.

    Args:
        rows: the rows.
        total: how long the run took, in seconds. What is in no row of it gets a row of its own.

    Example:
        >>> [(row.component, row.share) for row in sorted_rows([TimerRow("a", "b", 1, 0.5)], 2)]
        [('(data and loop)', 0.75), ('a', 0.25)]
    """
    found = [row for row in rows if row.count]
    outside = max(total - sum(row.seconds for row in found), 0.0)
    found.append(TimerRow(OUTSIDE, "", 1, outside))
    for row in found:
        row.share = row.seconds / total if total else 0.0
    return sorted(found, key=lambda row: -row.seconds)


def as_table(rows: Iterable[TimerRow]) -> str:
    """Return rows as a table of text.

    Example:
        >>> print(as_table([TimerRow("ema", "on_optim_step", 200, 0.5, 0.25)]))
        component  point          total s  share  count  mean µs
        ema        on_optim_step    0.500  25.0%    200     2500
    """
    heads = ("component", "point", "total s", "share", "count", "mean µs")
    cells = [heads] + [
        (
            row.component,
            row.point,
            f"{row.seconds:.3f}",
            f"{row.share:.1%}",
            f"{row.count}",
            f"{row.mean:.3g}" if row.mean < 100 else f"{row.mean:.0f}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
