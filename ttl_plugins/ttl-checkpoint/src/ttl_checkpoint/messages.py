"""What `checkpoint` logs: where a run resumes from, that it was complete, how a signal ended it."""

from __future__ import annotations

import logging
import signal
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from ttl_checkpoint.resuming import Found
from ttl_checkpoint.retention import last_finite, manifests_of
from ttl_checkpoint.store import Store

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_trained: dict[Path, weakref.ref[TrainTestLoop]] = {}
"""The loop of this process that has trained last, by directory."""


def log_resuming(store: Store, found: Found) -> None:
    """Log from where a run resumes, and if its model is not finite.

    Args:
        store: the directory of checkpoints.
        found: the checkpoint.
    """
    more = ""
    if found.manifest.get("finite") is False:
        healthy = last_finite(manifests_of(store, found.manifest["run"]))
        more = ". Its model is not finite"
        more += f"; the newest one that is: resume={str(healthy)!r}" if healthy else ""
    _log.warning("checkpoint: resuming from %s%s", found.path, more)


def log_complete(loop: TrainTestLoop, directory: Path, *, is_stopped: bool) -> None:
    """Log that a run had ended before it was started again, and what to do.

    Args:
        loop: the loop.
        directory: where the checkpoints are.
        is_stopped: whether a component had ended it.
    """
    done = f"after {loop.epoch_num} epochs and {loop.global_step} steps"
    if is_stopped:
        what = f"was stopped {done}. To train on, give resume= the path of a checkpoint before that"
    else:
        what = f"is complete {done}. To train longer, give train() more epochs or steps"
    other = _trained.get(directory)
    more = ""
    if other is not None and other() is not loop:
        more = (
            ". Another loop of this process has trained there: folds and trials need directories "
            "of their own"
        )
    _log.warning(
        "checkpoint: nothing was trained: the run in %s %s. To start again, give another "
        "directory, or resume='never'%s",
        directory,
        what,
        more,
    )


def remember(loop: TrainTestLoop, directory: Path) -> None:
    """Remember that a loop has trained with a directory."""
    _trained[directory] = weakref.ref(loop)


def log_exit(
    received: signal.Signals, saved: Path | None, *, can_resume: bool, is_new: bool
) -> None:
    """Log that a signal has ended a run, what was saved, and how to resume.

    Args:
        received: the signal.
        saved: the newest checkpoint; None if there is none.
        can_resume: whether the same script resumes when it is started again.
        is_new: whether it holds what was there when the signal came.
    """
    again = "Start the same script again to resume"
    if not can_resume:
        again = "To resume, start the script again with resume='auto'"
    _log.warning(
        "checkpoint: %s ended the run; %s. %s",
        received.name,
        f"{'saved' if is_new else 'the newest is'} {saved}" if saved else "nothing was saved",
        again if saved else "It starts again from the beginning",
    )
