"""The lock by which one run at a time, and one component in it, saves into a directory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ttl_core import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FILE = ".lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_held: set[str] = set()
"""The directories that this process has locked. The system would grant it the same lock twice."""


class DirectoryLock:
    """A lock on a directory, which the system releases when the process ends, however it ends.

    Args:
        directory: the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._resolved = ""

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunError: another run, or another component of this one, holds it.
            OSError: the lock file cannot be opened.
        """
        resolved = os.path.realpath(self._directory)
        if resolved in _held:  # not even opened: closing the file would release the other's lock
            raise self._held_by_another()
        descriptor = os.open(self._directory / _FILE, _FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, f"{_FILE} in it is no regular file")
            if fcntl is not None:
                # not flock(), which forked workers would keep holding
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise self._held_by_another() from None
            raise
        _held.add(resolved)
        self._descriptor, self._resolved = descriptor, resolved

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            _held.discard(self._resolved)
            self._descriptor = None

    def _held_by_another(self) -> RunError:
        return RunError(
            f"another run, or another component of this one, saves into {self._directory}. Give "
            "each a directory of its own"
        )
