"""Which checkpoints of a run are kept, and which are removed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.manifest import read_manifest
from ttl_checkpoint.store import Store
from ttl_core import ArgumentError
from ttl_core.arguments import whole_number


def checked_keep(keep: int | None) -> int | None:
    """Return how many checkpoints to keep.

    Raises:
        ArgumentError: it is neither None nor a whole number from 2.
    """
    if keep is None:
        return None
    try:
        return whole_number("keep", keep, minimum=2)
    except ArgumentError as error:
        raise ArgumentError(
            f"{error}, so that one is left if the newest is found corrupt; None keeps all"
        ) from None


def outdated(store: Store, run: str, keep: int | None, mode: Literal["min", "max"]) -> list[Path]:
    """Return the checkpoints to remove: those of a run but its newest ones and its best one.

    Args:
        store: the directory of checkpoints.
        run: the identifier of the run; other runs' checkpoints are left alone.
        keep: how many of the newest to keep; None for all.
        mode: whether the best one has the lowest ("min") or the highest ("max") metric.
    """
    if keep is None:
        return []
    own: dict[Path, float | None] = {}  # newest first, with the metric where it had improved
    for path in store.checkpoints():
        with contextlib.suppress(CheckpointError):
            manifest = read_manifest(path)
            if manifest["run"] == run:
                own[path] = manifest["best"]
    metrics = {path: value for path, value in own.items() if value is not None}
    pick = min if mode == "min" else max
    best = pick(metrics, key=metrics.__getitem__, default=None)
    return [path for path in list(own)[keep:] if path != best]
