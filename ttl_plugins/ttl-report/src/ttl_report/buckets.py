"""Buckets: what stands for several neighbouring values of a series."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Logged = tuple[float, int, int]
"""A value, and the step and the epoch in which it was logged."""


class Bucket(NamedTuple):
    """One or several neighbouring values; none by default.

    Attributes:
        step: the step of the last one.
        n_finite: how many of them are finite.
        mean: the mean of the finite ones.
        low: the lowest one; infinity where none is finite.
        high: the highest one; minus infinity where none is finite.
    """

    step: float = 0
    n_finite: float = 0
    mean: float = 0.0
    low: float = math.inf
    high: float = -math.inf


def bucket_of(logged: Sequence[Logged]) -> Bucket:
    """Return a bucket of values.

    Args:
        logged: the values, at least one.
    """
    step = logged[-1][1]
    values = [value for value, _, _ in logged]
    total = sum(values)
    if not math.isfinite(total):
        values = [value for value in values if math.isfinite(value)]
        if not values:
            return Bucket(step)
        total = sum(values)
    return Bucket(step, len(values), total / len(values), min(values), max(values))


def joined(first: Bucket, second: Bucket) -> Bucket:
    """Return two neighbouring buckets as one."""
    n_finite = first.n_finite + second.n_finite
    share = second.n_finite / n_finite if n_finite else 0.0
    return Bucket(
        second.step,
        n_finite,
        first.mean + (second.mean - first.mean) * share,
        min(first.low, second.low),
        max(first.high, second.high),
    )


def halved(buckets: Sequence[Bucket]) -> list[Bucket]:
    """Return buckets with each two neighbours joined; one that is left over stays.

    Example:
        >>> halved([Bucket(1, 1, 2.0, 2.0, 2.0), Bucket(2, 1, 4.0, 4.0, 4.0)])
        [Bucket(step=2, n_finite=2, mean=3.0, low=2.0, high=4.0)]
    """
    pairs = list(map(joined, buckets[::2], buckets[1::2]))
    return [*pairs, *buckets[2 * len(pairs) :]]


def as_columns(buckets: Sequence[Bucket], limit: int, *, has_bands: bool) -> dict[str, list[Any]]:
    """Return buckets as a page holds them, joined until there are few enough.

    Args:
        buckets: the buckets.
        limit: how many there may be, 2 at least.
        has_bands: whether they hold several values already.

    Returns:
        `steps`; `values`, the means, None where no value is finite; and where buckets hold several
        values, `low` and `high`.
    """
    while len(buckets) > max(limit, 2):
        buckets, has_bands = halved(buckets), True
    columns: dict[str, list[Any]] = {
        "steps": [int(bucket.step) for bucket in buckets],
        "values": [_rounded(bucket.mean) if bucket.n_finite else None for bucket in buckets],
    }
    if has_bands:
        columns["low"] = [_rounded(bucket.low) for bucket in buckets]
        columns["high"] = [_rounded(bucket.high) for bucket in buckets]
    return columns


def _rounded(value: float) -> float | None:
    """Return a number in as many digits as a chart can show; None where it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None  # a mean may overflow


def thinned(columns: Mapping[str, Any], limit: int) -> dict[str, list[Any]]:
    """Return columns, as of `as_columns`, with fewer buckets.

    Args:
        columns: a mapping with the columns, of which only these are used.
        limit: how many buckets there may be, 2 at least.
    """
    steps, values = columns["steps"], columns["values"]
    rows = zip(steps, values, columns.get("low", values), columns.get("high", values), strict=True)
    buckets = [
        Bucket(step, 0, 0.0, math.inf, -math.inf)
        if value is None
        else Bucket(step, 1, value, low, high)
        for step, value, low, high in rows
    ]
    return as_columns(buckets, limit, has_bands="low" in columns)
