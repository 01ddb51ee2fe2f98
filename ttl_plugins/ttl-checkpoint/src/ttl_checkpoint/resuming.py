"""Which checkpoint a run resumes from, and how its position compares with another."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ttl_checkpoint.errors import CheckpointError, CorruptError, os_reason
from ttl_checkpoint.manifest import MANIFEST_FILE
from ttl_checkpoint.reading import read_state
from ttl_checkpoint.store import Store
from ttl_core.arguments import did_you_mean

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A checkpoint and its state."""

    path: Path
    state: dict[str, Any]


def find_checkpoint(store: Store, resume: str | os.PathLike[str]) -> Found | None:
    """Return the checkpoint to resume from; None if there is none.

    Args:
        store: the directory of checkpoints.
        resume: "auto" for the newest intact one, after which corrupt ones newer than it are set
            aside; "never" for none; or the path of one.

    Raises:
        CheckpointError: the one that was named cannot be read, or all in the directory are corrupt.
    """
    if resume == "never":
        return None
    if resume != "auto":
        return Found(Path(resume), _read_named(Path(resume)))
    corrupt: list[tuple[Path, CorruptError]] = []
    for path in store.checkpoints():
        try:
            found = Found(path, read_state(path))
        except CorruptError as error:
            corrupt.append((path, error))
            continue
        for bad, why in corrupt:
            aside = store.set_aside(bad)
            _log.warning("checkpoint: %s. It is set aside as %s", why, aside.name)
        return found
    if corrupt:
        raise CheckpointError(
            f"none of the {len(corrupt)} checkpoints in {store.directory} is intact. The newest: "
            f"{corrupt[0][1]}. To start again: use('checkpoint', ..., resume='never')"
        )
    return None


def _read_named(path: Path) -> dict[str, Any]:
    """Return the state of the checkpoint that `resume` names.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    try:
        os.stat(path / MANIFEST_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        inside = Store(path).checkpoints()
        if inside:
            problem = f"is a directory of checkpoints. Name one of them, as {inside[0]}"
        elif path.is_dir():
            return read_state(path)  # says what it lacks
        else:
            names = [other.name for other in Store(path.parent).checkpoints()]
            there = (
                f"In {path.parent} are: {', '.join(names[:5])}"
                if names
                else "No checkpoint is there"
            )
            hint = did_you_mean(path.name, ("auto", "never", *names))
            problem = f"does not exist: {os_reason(error)}. {hint}{there}"
        raise CheckpointError(f"resume names {path} but that {problem}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {os_reason(error)}") from error
    return read_state(path)


def comparable_position(position: Mapping[str, Any], loop: TrainTestLoop) -> object:
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
