"""Which checkpoints of a run are kept, and which are removed."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.manifest import UNPROVEN_FILE
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
        return whole_number("keep", keep, at_least=2)
    except ArgumentError as error:
        raise ArgumentError(
            f"{error}, so that one is left if the newest is found corrupt; None keeps all"
        ) from None


def outdated(store: Store, run: str, keep: int | None, mode: Literal["min", "max"]) -> list[Path]:
    """Return the checkpoints to remove: those of a run that are not needed any more.

    Needed are its newest ones, its best one, the newest one whose model is finite, the newest one
    that is proven, and the one that will be proven next, as none would live that long where more
    than `keep` are saved until then.

    Args:
        store: the directory of checkpoints.
        run: the identifier of the run; other runs' checkpoints are left alone.
        keep: how many of the newest to keep; None for all.
        mode: whether the best one has the lowest ("min") or the highest ("max") metric.
    """
    if keep is None:
        return []
    own = manifests_of(store, run)
    older = list(own)[1:]  # the newest one has just been written, and is not marked yet
    proven = next(filter(is_proven, older), None)
    next_proven = [*itertools.takewhile(lambda path: path != proven, older)][-1:]
    needed = [*list(own)[:keep], best_of(own, mode), last_finite(own), proven, *next_proven]
    return [path for path in own if path not in needed]


def is_proven(path: Path) -> bool:
    """Return whether no component has marked a checkpoint as one that may not be healthy.

    Args:
        path: the directory of the checkpoint.
    """
    return not (path / UNPROVEN_FILE).exists()


def best_of(manifests: Mapping[Path, Mapping[str, Any]], mode: str) -> Path | None:
    """Return the checkpoint with the best metric among those where it had improved, if any.

    Those of another metric than the newest of them are left out.

    Args:
        manifests: the manifests of checkpoints, newest first.
        mode: whether less ("min") or more ("max") is better, where manifests do not say.
    """
    improved = {path: m for path, m in manifests.items() if m["best"] is not None}
    newest = next(iter(improved.values()), {})
    metric, mode = newest.get("monitor"), newest.get("mode") or mode
    values = {path: m["best"] for path, m in improved.items() if m.get("monitor") == metric}
    pick = min if mode == "min" else max
    return pick(values, key=values.__getitem__, default=None)


def manifests_of(store: Store, run: str | None = None) -> dict[Path, Mapping[str, Any]]:
    """Return the manifests of the checkpoints of a run, newest first; unreadable ones are left out.

    Args:
        store: the directory of checkpoints.
        run: the identifier of the run; None for the run of the newest one.
    """
    found: dict[Path, Mapping[str, Any]] = {}
    for path in store.checkpoints():
        with contextlib.suppress(CheckpointError):
            manifest = store.manifest(path)
            run = run or manifest["run"]
            if manifest["run"] == run:
                found[path] = manifest
    return found


def best_path(store: Store, mode: str = "min") -> Path | None:
    """Return the checkpoint with the best metric, of the run that has saved the newest one, if any.

    Args:
        store: the directory of checkpoints.
        mode: whether less ("min") or more ("max") is better, where manifests do not say.
    """
    return best_of(manifests_of(store), mode)


def last_finite(manifests: Mapping[Path, Mapping[str, Any]]) -> Path | None:
    """Return the newest checkpoint whose model is finite, or is not known not to be."""
    for finite in (True, None):  # None: earlier versions did not save it
        for path, manifest in manifests.items():
            if manifest.get("finite") is finite:
                return path
    return None
