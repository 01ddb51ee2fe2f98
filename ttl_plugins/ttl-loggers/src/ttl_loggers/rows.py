"""Rows: the values that were logged at one step and level, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from ttl_core import LogRecord

Row: TypeAlias = dict[str, int | float | str]

KEYS = ("level", "epoch", "step", "time")
"""The columns that each row of a file begins with: where and when its first value was logged."""


def add_records(
    rows: list[Row],
    records: Iterable[LogRecord],
    skip: Callable[[str, str], None],
    keys: Sequence[str] = KEYS,
) -> None:
    """Add the values of records to rows.

    The values of a record continue the last row if that is of the same step, epoch and level and
    has none of their names; else they begin a new row.

    Args:
        rows: the rows, of which the last may grow.
        records: the records.
        skip: is called with the name of each value that no row can hold, and the reason.
        keys: the columns that each row begins with, attributes of records.
    """
    reserved = set(keys)
    row = rows[-1] if rows else None
    place = None if row is None else (row["step"], row["epoch"], row.get("level"))
    has_level = "level" in reserved
    for record in records:
        for name, value in record.others.items():
            skip(name, f"it is a {type(value).__name__}, and a row holds single numbers")
        values = record.values
        if not reserved.isdisjoint(values):
            values = dict(values)
            for name in values.keys() & reserved:
                del values[name]
                skip(name, "each row has a column of that name. Log it under another one")
        if not values:
            continue
        here = (record.step, record.epoch, record.level if has_level else None)
        if row is not None and here == place and row.keys().isdisjoint(values):
            row.update(values)
        else:
            row = {key: getattr(record, key) for key in keys}
            row.update(values)
            rows.append(row)
            place = here
