"""What is kept of logged values: any number of them in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import torch

from ttl_report.buckets import Bucket, Logged, as_columns, bucket_of, halved, joined

_CAPACITY = 2048  # buckets of a series; more than a chart has pixels, so that zooming shows more
_MAX_LISTED = 20  # non-finite values of a series that are kept one by one

_value = itemgetter(0)


class Series:
    """The values of one name at one level, in buckets of equally many values.

    A bucket is one value at first. When there are too many of them, each two neighbours become
    one, which keeps their mean, lowest and highest value: so any number of values fits, and no
    spike is lost. Values that are not finite are counted, and are gaps.

    Args:
        name: the full name, such as "train/loss".
        level: "batch" or "epoch".

    Attributes:
        width: how many values a bucket holds; the last one may hold fewer.
        count: how many values there are.
        last: the last value, also where it is not finite.
        lowest: the lowest finite value, its step and its epoch; None before the first.
        highest: the highest finite value, its step and its epoch; None before the first.
        n_non_finite: how many values are not finite.
        non_finite: the first of them, as pairs of step and value.

    Example:
        >>> series = Series("train/loss", "batch")
        >>> epoch = 1
        >>> series.extend([(float(step == 5678), step, epoch) for step in range(10_000)])
        >>> columns = series.columns()
        >>> len(columns["steps"]) < 2048, max(columns["high"]), series.highest
        (True, 1.0, (1.0, 5678, 1))
    """

    __slots__ = (
        *("_flat", "_room", "count", "highest", "last", "level", "lowest"),
        *("n_non_finite", "name", "non_finite", "width"),
    )

    def __init__(self, name: str, level: str) -> None:
        self.name = name
        self.level = level
        self.width = 1
        self.count = 0
        self.last = math.nan
        self.lowest: Logged | None = None
        self.highest: Logged | None = None
        self.n_non_finite = 0
        self.non_finite: list[tuple[int, float]] = []
        self._room = 0  # how many more values the last bucket takes
        self._flat = array("d")  # the buckets, in a fifth of the memory of objects

    def extend(self, logged: Sequence[Logged]) -> None:
        """Add values. Many at once cost less: their means and extremes are computed in C.

        Args:
            logged: the values, in the order in which they were logged.
        """
        self._update_attributes(logged)
        if logged and self._room:
            last = joined(Bucket(*self._flat[-5:]), bucket_of(logged[: self._room]))
            self._flat[-5:] = array("d", last)
        start = self._room
        self._room = max(self._room - len(logged), 0)
        while start < len(logged):
            if len(self._flat) == 5 * _CAPACITY:
                self._halve()
            if self.width == 1:  # as in all runs that are not long
                part = logged[start : start + _CAPACITY - len(self._flat) // 5]
                self._flat.extend(chain.from_iterable(map(_bucket_of_one, part)))
                start += len(part)
                continue
            self._flat.extend(bucket_of(logged[start : start + self.width]))
            start += self.width
            self._room = max(start - len(logged), 0)

    def _update_attributes(self, logged: Sequence[Logged]) -> None:
        if not logged:
            return
        self.count += len(logged)
        self.last = logged[-1][0]
        if not math.isfinite(sum(map(_value, logged))):
            others = [(step, value) for value, step, _ in logged if not math.isfinite(value)]
            self.n_non_finite += len(others)
            self.non_finite += others[: _MAX_LISTED - len(self.non_finite)]
            logged = [each for each in logged if math.isfinite(each[0])]
            if not logged:
                return
        lowest, highest = min(logged, key=_value), max(logged, key=_value)
        if self.lowest is None or lowest[0] < self.lowest[0]:
            self.lowest = lowest
        if self.highest is None or highest[0] > self.highest[0]:
            self.highest = highest

    def _halve(self) -> None:
        self._flat = array("d", (number for row in halved(self._buckets()) for number in row))
        self.width *= 2

    def _buckets(self) -> list[Bucket]:
        numbers = iter(self._flat)
        return list(map(Bucket._make, zip(*5 * [numbers], strict=True)))

    def columns(self, limit: int = _CAPACITY) -> dict[str, list[Any]]:
        """Return the values as a page holds them; see `as_columns`.

        Args:
            limit: how many buckets there may be.
        """
        return as_columns(self._buckets(), limit, has_bands=self.width > 1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, of types that `torch.load` accepts; a tensor where there is much."""
        return {
            "name": self.name,
            "level": self.level,
            "width": self.width,
            "room": self._room,
            "count": self.count,
            "last": self.last,
            "lowest": self.lowest,
            "highest": self.highest,
            "n_non_finite": self.n_non_finite,
            "non_finite": list(self.non_finite),
            "buckets": torch.tensor(self._flat, dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Series:
        """Return the series of a state.

        Args:
            state: what `state_dict()` returned.
        """
        series = cls(state["name"], state["level"])
        series.width, series._room = state["width"], state["room"]
        series.count, series.last = state["count"], state["last"]
        series.lowest, series.highest = state["lowest"], state["highest"]
        series.n_non_finite = state["n_non_finite"]
        series.non_finite = [(step, value) for step, value in state["non_finite"]]
        series._flat = array("d", state["buckets"].tolist())
        return series


class Curves:
    """The series of a run, in the order in which they were first logged."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}

    def __iter__(self) -> Iterator[Series]:
        return iter(self._series.values())

    def extend(self, name: str, level: str, logged: Iterable[tuple[float, int, int]]) -> None:
        """Add values to the series of a name and level.

        Args:
            name: the full name.
            level: "batch" or "epoch".
            logged: the values, each with its step and epoch; an integer that no float can hold
                counts as infinite.
        """
        if (name, level) not in self._series:
            self._series[name, level] = Series(name, level)
        self._series[name, level].extend([(_as_float(v), step, epoch) for v, step, epoch in logged])

    def state_dict(self) -> list[dict[str, Any]]:
        """Return all series, of types that `torch.load` accepts."""
        return [series.state_dict() for series in self]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Replace all series.

        Args:
            state: what `state_dict()` returned.
        """
        loaded = map(Series.from_state, state)
        self._series = {(series.name, series.level): series for series in loaded}


def _bucket_of_one(logged: Logged) -> tuple[float, ...]:
    """Return the numbers of a bucket of one value, in half the time of `bucket_of`."""
    value, step, _ = logged
    return (step, 1, value, value, value) if math.isfinite(value) else Bucket(step)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
