"""The lock by which one run at a time, and one component in it, saves into a directory."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from pathlib import Path

from ttl_checkpoint.errors import os_reason, warn_once
from ttl_core import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FILE = ".lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}

_held: dict[str, DirectoryLock] = {}
"""The locks of this process, by directory. Some systems would grant it the same lock twice."""


class DirectoryLock:
    """A lock on a directory, which the system releases when the process ends, however it ends.

    On Linux it survives that other code in this process opens and closes the file, as a copy of
    the directory does. Elsewhere that releases it.

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
        """Take the lock. Where the file system has no locks, it warns, once.

        Raises:
            RunError: another run, or another component of this one, holds it.
            OSError: the lock file cannot be opened.
        """
        resolved = os.path.realpath(self._directory)
        if resolved in _held:  # not even opened: closing the file may release the other's lock
            raise self._held_by_another()
        descriptor = os.open(self._directory / _FILE, _FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, f"{_FILE} in it is no regular file")
            _lock(descriptor)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise self._held_by_another() from None
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            self._warn_of_no_locks(descriptor, error)
        self._descriptor, self._resolved = descriptor, resolved
        _held[resolved] = self

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            _held.pop(self._resolved, None)
            self._descriptor = None

    def forget(self) -> None:
        """Close a forked process's copy of the lock, which stays with the process that took it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _warn_of_no_locks(self, descriptor: int, error: OSError) -> None:
        try:
            warn_once(
                f"the file system of {self._directory} has no locks ({os_reason(error)}), so "
                "nothing prevents a second run from saving there too. Start one at a time"
            )
        except BaseException:  # warnings can be errors
            os.close(descriptor)
            raise

    def _held_by_another(self) -> RunError:
        return RunError(
            f"another run, or another component of this one, saves into {self._directory}. Give "
            "each a directory of its own"
        )


def _lock(descriptor: int) -> None:
    """Lock a file, not waiting for it.

    Raises:
        OSError: that is not possible.
    """
    if fcntl is None:
        return
    if sys.platform == "linux":
        # a lock of the open file, not of the process, which loses the latter when it closes the
        # file anywhere; struct flock, with the padding that the platform needs
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
            return
        except OSError as error:
            if error.errno != errno.EINVAL:  # of an old kernel
                raise
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _forget_in_child() -> None:
    """Close the locks in a process that was forked, as a worker, which may outlive the run."""
    for lock in _held.values():
        lock.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
