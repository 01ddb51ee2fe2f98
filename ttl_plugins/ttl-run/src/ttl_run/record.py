"""The record of a run in its folder, `run.json`."""

from __future__ import annotations

import datetime
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ttl_core.arguments import user_stacklevel
from ttl_core.files import write_atomically
from ttl_run.ending import end_of
from ttl_run.surroundings import machine, surroundings

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

RECORD_FILE = "run.json"
_FINISHED = ("complete", "stopped")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of the run in a folder; None where there is none, or it is damaged."""
    try:
        record = json.loads((folder / RECORD_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("starts"), list) else None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a run. A reader finds the earlier one or this one, never a part.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(folder / RECORD_FILE, f"{json.dumps(record, indent=2)}\n".encode())


def is_unfinished(record: Mapping[str, Any]) -> bool:
    """Return whether the last start of a run did not come to its end.

    Example:
        >>> is_unfinished({"starts": [{"ended": "failed"}, {"ended": "complete"}]})
        False
        >>> is_unfinished({"starts": [{"ended": None}]})  # it was killed
        True
    """
    starts = record["starts"]
    return bool(starts) and starts[-1].get("ended") not in _FINISHED


class RunRecord:
    """The record of a run, with an entry for each start of its script.

    Args:
        folder: the folder of the run.

    Attributes:
        interrupted: how the last start before this one ended, if it did not come to its end.
    """

    def __init__(self, folder: Path) -> None:
        earlier = read_record(folder) or {"starts": []}
        self.interrupted: str | None = None
        if is_unfinished(earlier):
            self.interrupted = earlier["starts"][-1].get("ended") or "killed"
        self._path = folder / RECORD_FILE
        self._starts: list[dict[str, Any]] = earlier["starts"]
        self._content = surroundings()
        self._has_warned = False
        git = self._content["git"] or {}
        self._start: dict[str, Any] = {
            "start": _now(),
            "end": None,
            "ended": None,  # how; as long as it is None, the run is under way, or was killed
            "commit": git.get("commit"),
            "process": os.getpid(),
        }

    def begin(self, loop: TrainTestLoop) -> None:
        """Record that a run is under way: a new start, or a further run of this one.

        Raises:
            OSError: it is the first run, and the record cannot be written.
        """
        if self._start["ended"] is None:
            self._write(loop)
        else:
            self._update(loop, {"end": None, "ended": None})

    def end(self, loop: TrainTestLoop, exception: BaseException | None) -> None:
        """Record how a run has ended.

        Args:
            loop: the loop.
            exception: what it ends with; None if it is nothing.
        """
        end = end_of(loop, exception)
        if end["ended"] == "stopped" and end["stopped_by"] is None and self._starts:
            # a run that an earlier start has stopped, of which the state does not say by what
            end["stopped_by"] = self._starts[-1].get("stopped_by")
        self._update(loop, {"end": _now(), **end})

    def _update(self, loop: TrainTestLoop, changed: Mapping[str, Any]) -> None:
        """Change the entry of this start; where that cannot be written, training continues."""
        kept = ("start", "commit", "process")
        self._start = {**{key: self._start[key] for key in kept}, **changed}
        try:
            self._write(loop)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(
                    f"run-folder: {self._path} cannot be written: {error}. Training continues, "
                    "but it does not say how the run ends",
                    UserWarning,
                    stacklevel=user_stacklevel(),
                )

    def _write(self, loop: TrainTestLoop) -> None:
        content = {
            "folder": str(self._path.parent),
            "manifest": loop.manifest(),
            **self._content,
            "machine": machine(),  # of which more is known when devices have been used
            "seeds": {"torch": torch.initial_seed()},
            "starts": [*self._starts, self._start],
        }
        write_record(self._path.parent, content)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
