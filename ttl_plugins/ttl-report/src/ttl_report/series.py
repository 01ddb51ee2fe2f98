"""What is kept of logged values: any number of them in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ttl_report.buckets import Bucket, as_columns, halved

_CAPACITY = 2048  # buckets of a series; more than a chart has pixels, so that zooming shows more
_MAX_LISTED = 20  # non-finite values of a series that are kept one by one


class Extreme(NamedTuple):
    """The lowest or the highest value of a series, and when it was logged."""

    value: float
    step: int
    epoch: int


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
        count: how many values were added.
        last: the last value, also where it is not finite.
        lowest: the lowest finite value; None before the first.
        highest: the highest finite value; None before the first.
        n_non_finite: how many values were not finite.
        non_finite: the first of them, as pairs of step and value.

    Example:
        >>> series = Series("train/loss", "batch")
        >>> for step in range(10_000):
        ...     series.add(step, 0, 1.0 if step == 5678 else 0.0)
        >>> columns = series.columns()
        >>> len(columns["steps"]) < 2048, max(columns["high"]), series.highest.step
        (True, 1.0, 5678)
    """

    __slots__ = (
        *("_highs", "_lows", "_means", "_n_finite", "_room", "_steps", "count", "highest", "last"),
        *("level", "lowest", "n_non_finite", "name", "non_finite", "width"),
    )

    def __init__(self, name: str, level: str) -> None:
        self.name = name
        self.level = level
        self.width = 1
        self.count = 0
        self.last = math.nan
        self.lowest: Extreme | None = None
        self.highest: Extreme | None = None
        self.n_non_finite = 0
        self.non_finite: list[tuple[int, float]] = []
        self._room = 0  # how many more values the last bucket takes
        self._steps, self._n_finite = array("q"), array("q")
        self._means, self._lows, self._highs = array("d"), array("d"), array("d")

    def add(self, step: int, epoch: int, value: float) -> None:
        """Add a value.

        Args:
            step: the optimization step at which it was logged.
            epoch: the epoch in which it was logged.
            value: the value.
        """
        self.count += 1
        self.last = value
        if not self._room:
            self._new_bucket()
        self._room -= 1
        self._steps[-1] = step
        if not math.isfinite(value):
            self.n_non_finite += 1
            if len(self.non_finite) < _MAX_LISTED:
                self.non_finite.append((step, value))
            return
        if self.lowest is None or self.highest is None:
            self.lowest = self.highest = Extreme(value, step, epoch)
        elif value < self.lowest.value:
            self.lowest = Extreme(value, step, epoch)
        elif value > self.highest.value:
            self.highest = Extreme(value, step, epoch)
        self._n_finite[-1] += 1
        mean = self._means[-1]
        self._means[-1] = mean + (value - mean) / self._n_finite[-1]
        if value < self._lows[-1]:
            self._lows[-1] = value
        if value > self._highs[-1]:
            self._highs[-1] = value

    def _new_bucket(self) -> None:
        if len(self._steps) == _CAPACITY:
            self._halve()
        self._room = self.width
        self._steps.append(0)
        self._n_finite.append(0)
        self._means.append(0.0)
        self._lows.append(math.inf)
        self._highs.append(-math.inf)

    def _halve(self) -> None:
        steps, n_finite, means, lows, highs = zip(*halved(self._buckets()), strict=True)
        self._steps, self._n_finite = array("q", steps), array("q", n_finite)
        self._means, self._lows, self._highs = (
            array("d", means),
            array("d", lows),
            array("d", highs),
        )
        self.width *= 2

    def _buckets(self) -> list[Bucket]:
        columns = (self._steps, self._n_finite, self._means, self._lows, self._highs)
        return list(map(Bucket._make, zip(*columns, strict=True)))

    def columns(self, limit: int = _CAPACITY) -> dict[str, list[Any]]:
        """Return the values as a page holds them; see `as_columns`.

        Args:
            limit: how many buckets there may be.
        """
        return as_columns(self._buckets(), limit, has_bands=self.width > 1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything, of types that `torch.load` accepts; tensors where there is much."""
        counts, values = (self._steps, self._n_finite), (self._means, self._lows, self._highs)
        return {
            "name": self.name,
            "level": self.level,
            "width": self.width,
            "room": self._room,
            "count": self.count,
            "last": self.last,
            "lowest": self.lowest and tuple(self.lowest),
            "highest": self.highest and tuple(self.highest),
            "n_non_finite": self.n_non_finite,
            "non_finite": list(self.non_finite),
            "columns": [
                *(torch.tensor(column, dtype=torch.int64) for column in counts),
                *(torch.tensor(column, dtype=torch.float64) for column in values),
            ],
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
        series.lowest = state["lowest"] and Extreme(*state["lowest"])
        series.highest = state["highest"] and Extreme(*state["highest"])
        series.n_non_finite = state["n_non_finite"]
        series.non_finite = [(step, value) for step, value in state["non_finite"]]
        columns = [column.tolist() for column in state["columns"]]
        series._steps, series._n_finite = array("q", columns[0]), array("q", columns[1])
        series._means, series._lows, series._highs = (array("d", column) for column in columns[2:])
        return series


class Curves:
    """The series of a run, in the order in which they were first logged."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}

    def __iter__(self) -> Iterator[Series]:
        return iter(self._series.values())

    def add(self, name: str, level: str, step: int, epoch: int, value: float) -> None:
        """Add a value to the series of a name and level.

        Args:
            name: the full name.
            level: "batch" or "epoch".
            step: the optimization step at which it was logged.
            epoch: the epoch in which it was logged.
            value: the value; an integer that no float can hold counts as infinite.
        """
        key = name, level
        if key not in self._series:
            self._series[key] = Series(name, level)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf if value > 0 else -math.inf
        self._series[key].add(step, epoch, number)

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
