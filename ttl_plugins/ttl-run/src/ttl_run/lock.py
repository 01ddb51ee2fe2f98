"""The lock by which a folder belongs to one run at a time."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a folder is not locked
    fcntl = None  # type: ignore[assignment]

_FILE = ".run-lock"

_held: set[str] = set()
"""The folders that are locked by this process, to which the system would grant the lock twice."""


class FolderLock:
    """A lock on a folder, which the system releases when the process ends, however it ends.

    It belongs to the process: workers that are forked from it do not hold it, and it is lost where
    other code of the process opens and closes the file.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = os.path.realpath(folder)
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock, and return whether that was possible: else another run has it.

        Raises:
            OSError: the folder cannot be written to.
        """
        if self._key in _held:  # not even opened: closing the file would release the other's lock
            return False
        descriptor = os.open(self._folder / _FILE, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is not None:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(descriptor)
                return False
            except OSError:  # a file system without locks
                pass
        self._descriptor = descriptor
        _held.add(self._key)
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self._key)
