"""The table of the epochs of a train(), with the best values marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from ttl_core import likely_mode

_MAX_ROWS = 20


def best_epoch(name: str, values: Mapping[int, float]) -> int | None:
    """Return the epoch with the best value of a metric; None where its name does not tell.

    Args:
        name: the full name of the metric.
        values: its values by the number of the epoch.

    Example:
        >>> best_epoch("valid/loss", {1: 0.5, 2: 0.3, 3: 0.4})
        2
        >>> best_epoch("lr", {1: 0.5, 2: 0.3}) is None
        True
    """
    finite = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
    if len(set(finite.values())) < 2:
        return None
    choose = {"min": min, "max": max}.get(likely_mode(name) or "")
    return choose(finite, key=finite.__getitem__) if choose else None


def epoch_table(
    values: Mapping[str, Mapping[int, float]], width: int, *, is_whole: bool = True
) -> Table:
    """Return a table with a row an epoch and a column a metric.

    Where it would be too wide, losses go first, then metrics of validation. Where there are many
    epochs, the last ones are shown, and the best.

    Args:
        values: by the full name of a metric and the number of the epoch.
        width: the number of columns of the output.
        is_whole: whether no epoch of the train() is missing; else a line below says so.
    """
    best = {name: best_epoch(name, by_epoch) for name, by_epoch in values.items()}
    epochs = _shown(sorted({e for by_epoch in values.values() for e in by_epoch}), best.values())
    columns: list[tuple[str, list[str]]] = []
    left, hidden = width - len("epoch") - 2, []
    for name in sorted(values, key=lambda n: (not n.endswith("/loss"), not n.startswith("valid/"))):
        cells = [_cell(values[name], epoch, best[name]) for epoch in epochs]
        header = name.replace("/", "\n")
        needed = max(map(len, [*header.split("\n"), *cells])) + 3
        if needed <= left:
            left -= needed
            columns.append((header, cells))
        else:
            hidden.append(name)
    caption = ["* the best"] if any(epoch is not None for epoch in best.values()) else []
    if not is_whole:
        first, *_, last = (epoch for epoch in epochs if epoch is not None)
        of_epochs = f"of epochs {first} to {last}; earlier values are not known"
        caption = [" ".join([*caption, of_epochs])]
    caption += [f"not shown, as it is too wide: {', '.join(hidden)}"] if hidden else []
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, caption="\n".join(caption), caption_justify="left"
    )
    table.add_column("epoch", justify="right", vertical="bottom")
    for header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True)
    for i, epoch in enumerate(epochs):
        table.add_row("..." if epoch is None else str(epoch), *(cells[i] for _, cells in columns))
    return table


def _shown(epochs: Sequence[int], best: Any) -> list[int | None]:
    """Return the epochs to show, with None where some are left out."""
    if len(epochs) <= _MAX_ROWS:
        return list(epochs)
    kept = sorted({*epochs[:1], *epochs[-_MAX_ROWS // 2 :], *(e for e in best if e is not None)})
    shown: list[int | None] = []
    for before, epoch in zip([kept[0] - 1, *kept], kept, strict=False):
        shown += [epoch] if epoch == before + 1 else [None, epoch]
    return shown


def _cell(by_epoch: Mapping[int, float], epoch: int | None, best: int | None) -> str:
    if epoch is None or epoch not in by_epoch:
        return ""
    return f"{by_epoch[epoch]:.4g}{'*' if epoch == best else ' '}"
