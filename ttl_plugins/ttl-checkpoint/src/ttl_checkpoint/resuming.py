"""Which checkpoint a run resumes from, and how its position compares with another."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ttl_checkpoint.errors import CheckpointError, CorruptError, os_reason
from ttl_checkpoint.manifest import MANIFEST_FILE, read_manifest
from ttl_checkpoint.reading import read_checkpoint
from ttl_checkpoint.retention import best_path, is_proven
from ttl_checkpoint.store import Store
from ttl_core import Group
from ttl_core.arguments import did_you_mean

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A checkpoint to resume from.

    Attributes:
        path: its directory.
        manifest: its manifest.
        state: its state.
        is_named: whether `resume` names it, and not only its directory.
    """

    path: Path
    manifest: dict[str, Any]
    state: dict[str, Any]
    is_named: bool = False

    @property
    def rank(self) -> tuple[bool, float, int]:
        """A value that is greater for the one that decides among those of several savers."""
        position = self.state.get("position") or {}
        return self.is_named, _created(self.manifest), position.get("global_step", 0)


def _created(manifest: Mapping[str, Any]) -> float:
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        return datetime.datetime.fromisoformat(manifest["created"]).timestamp()
    return 0.0


def origin_of(resume: str | os.PathLike[str]) -> str | None:
    """Return what a run that resumes so records as its origin; None for "auto" and "never"."""
    if resume in ("auto", "never"):
        return None
    return "best" if resume == "best" else os.path.realpath(resume)


def find_in_group(
    group: Group,
    store: Store,
    resume: str | os.PathLike[str],
    mode: Literal["min", "max"] = "min",
) -> Found | None:
    """Return the checkpoint that all processes of a group resume from; None if there is none.

    The main process chooses it, and sets corrupt ones aside; all processes read it.

    Args:
        group: the processes, all of which have to call this.
        store: the directory of checkpoints.
        resume: see `find_checkpoint`.
        mode: see `find_checkpoint`.

    Raises:
        CheckpointError: it cannot be read.
    """
    if group.size == 1:
        return find_checkpoint(store, resume, mode)
    found = find_checkpoint(store, resume, mode) if group.is_main else None
    chosen = group.broadcast(None if found is None else (found.path, found.is_named))
    if chosen is None or found is not None:
        return found
    path, is_named = chosen
    return Found(path, *read_checkpoint(path, are_parts_verified=True), is_named)


def find_checkpoint(
    store: Store, resume: str | os.PathLike[str], mode: Literal["min", "max"] = "min"
) -> Found | None:
    """Return the checkpoint to resume from; None if there is none.

    Where the newest checkpoint of the directory was saved by a run that had resumed in the same
    way, "best" and a path have done what they should, and that run is continued.

    Args:
        store: the directory of checkpoints.
        resume: "auto" for the newest intact one that is proven, or else the newest, after
            which corrupt ones newer than it are set
            aside; "never" for none; "best" for the one with the best metric; or the path of one.
        mode: whether less ("min") or more ("max") of the metric is better, where the checkpoints
            do not say.

    Raises:
        CheckpointError: the one that was named cannot be read, or all in the directory are corrupt.
    """
    if resume == "never":
        return None
    if resume == "auto":
        return _newest_intact(store, store.checkpoints())
    with contextlib.suppress(_NoneIntactError):
        found = _newest_intact(store, _saved_since(store, origin_of(resume)))
        if found is not None:
            return found
    if resume == "best":
        path = best_path(store, mode)
        if path is None:
            _check_empty(store)
            return None
    else:
        path = Path(resume)
        _check_exists(path)
    return Found(path, *read_checkpoint(path), is_named=True)


class _NoneIntactError(CheckpointError):
    """A directory whose checkpoints are all corrupt."""


def _newest_intact(store: Store, paths: Sequence[Path]) -> Found | None:
    corrupt: list[tuple[Path, CorruptError]] = []
    for path in sorted(paths, key=lambda path: not is_proven(path)):
        try:
            found = Found(path, *read_checkpoint(path))
        except CorruptError as error:
            corrupt.append((path, error))
            continue
        for bad, why in corrupt:
            aside = store.set_aside(bad)
            _log.warning("checkpoint: %s. It is set aside as %s", why, aside.name)
        if path != paths[0] and is_proven(path) and not is_proven(paths[0]):
            _log.warning("checkpoint: %s is newer, but not proven healthy", paths[0].name)
        return found
    if corrupt:
        raise _NoneIntactError(
            f"none of the {len(corrupt)} checkpoints in {store.directory} is intact. The newest: "
            f"{corrupt[0][1]}. To start again: use('checkpoint', ..., resume='never')"
        )
    return None


def _saved_since(store: Store, origin: str | None) -> list[Path]:
    """Return the newest checkpoints, newest first, as far as runs of an origin have saved them."""
    found = []
    for path in store.checkpoints():
        with contextlib.suppress(CorruptError):  # found again when it is read
            if read_manifest(path).get("resumed_from") != origin:
                break
        found.append(path)
    return found


def _check_empty(store: Store) -> None:
    """Check that a directory has no checkpoint at all, as before the first run.

    Raises:
        CheckpointError: it has.
    """
    if store.checkpoints():
        raise CheckpointError(
            f"no checkpoint in {store.directory} was saved for its best metric, so resume='best' "
            "has none to resume from. Use resume='auto' for the newest one, or the path of one"
        )


def _check_exists(path: Path) -> None:
    """Check that `resume` names a checkpoint.

    Raises:
        CheckpointError: it does not.
    """
    try:
        os.stat(path / MANIFEST_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        inside = Store(path).checkpoints()
        if inside:
            problem = f"is a directory of checkpoints. Name one of them, as {inside[0]}"
        elif path.is_dir():
            return  # reading says what it lacks
        else:
            names = [other.name for other in Store(path.parent).checkpoints()]
            there = f"In {path.parent} are: {', '.join(names[:5])}"
            hint = did_you_mean(path.name, ("auto", "best", "never", *names))
            problem = f"does not exist: {os_reason(error)}. {hint}"
            problem += there if names else "No checkpoint is there"
        raise CheckpointError(f"resume names {path} but that {problem}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {os_reason(error)}") from error


def comparable_position(position: Mapping[str, Any], loop: TrainTestLoop) -> tuple[Any, ...]:
    """Return a position in a form that is the same at the last safe point and at the end."""
    # the last epoch is complete, though not counted yet
    is_complete = position["is_trained"] and loop.valid_data is None
    return (
        position["train_num"],
        position["global_step"],
        position["n_epochs_done"] + is_complete,
        position["is_trained"] and not is_complete,
        position["is_stopped"],
    )
