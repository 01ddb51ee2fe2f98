"""Choosing the folder of a run: a fixed one, the one of an unfinished run, or a new one."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import NamedTuple

from ttl_core import RunError
from ttl_core.files import DirectoryLock
from ttl_run.record import is_unfinished, read_record

_LOCK_FILE = ".run-lock"

_started: set[Path] = set()
"""The folders that runs of this process have started in: no other loop of it continues there."""


class RunPlace(NamedTuple):
    """A folder that belongs to one run.

    Attributes:
        folder: the folder.
        lock: its lock, which is held.
    """

    folder: Path
    lock: DirectoryLock


def fixed_folder(folder: Path) -> RunPlace:
    """Make a folder, if it does not exist, and lock it.

    Raises:
        RunError: it belongs to a run that is under way.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(folder, _LOCK_FILE)
    if not lock.acquire():
        raise RunError(
            f"run-folder: another run, which is under way, has the folder {folder}. Wait for it, "
            "or give each run a folder of its own, as use('run-folder', run_name=...) does"
        )
    _started.add(folder)
    return RunPlace(folder, lock)


def timed_folder(root: Path, name: str, *, may_continue: bool) -> RunPlace:
    """Lock the folder of the newest run of a name, if that is unfinished; else make a new one.

    Args:
        root: the folder of the folders of runs.
        name: the name, to which the time is added.
        may_continue: whether an unfinished run is continued.

    Raises:
        OSError: no folder can be made.
    """
    place = _unfinished(root, name) if may_continue else None
    return place or _new(root, name)


def _unfinished(root: Path, name: str) -> RunPlace | None:
    for folder in _folders(root, name):
        if folder in _started:
            continue
        record = read_record(folder)
        if record is None:  # killed before it began, or no folder of ours
            continue
        if not is_unfinished(record):
            return None
        lock = DirectoryLock(folder, _LOCK_FILE)
        if lock.acquire():
            record = read_record(folder)
            if record is not None and is_unfinished(record):  # not since it was read
                _started.add(folder)
                return RunPlace(folder, lock)
            lock.release()
    return None


def _folders(root: Path, name: str) -> list[Path]:
    """Return the folders of a name, newest first."""
    pattern = re.compile(rf"{re.escape(name)}-(\d{{8}}-\d{{6}})(?:-(\d+))?")
    found = [
        (match[1], int(match[2] or 1), folder)
        for folder in (root.iterdir() if root.is_dir() else ())
        if (match := pattern.fullmatch(folder.name)) and folder.is_dir()
    ]
    return [folder for _, _, folder in sorted(found, reverse=True)]


def _new(root: Path, name: str) -> RunPlace:
    root.mkdir(parents=True, exist_ok=True)
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        folder = root / (f"{name}-{time}" if number == 1 else f"{name}-{time}-{number}")
        number += 1
        try:
            folder.mkdir()  # fails where another process makes the same one
        except FileExistsError:
            continue
        lock = DirectoryLock(folder, _LOCK_FILE)
        if lock.acquire():
            _started.add(folder)
            return RunPlace(folder, lock)
