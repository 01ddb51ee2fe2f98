"""Files that components write: replaced as a whole, in directories that belong to one run.

Like the checks of arguments, these are public, so that all packages do the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from ttl_core.errors import ArgumentError, RunError

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

__all__ = ["DirectoryLock", "check_writable", "claim_directory", "write_atomically"]

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}

_held: dict[str, DirectoryLock] = {}
"""The locks of this process, by their files. Some systems would grant it the same lock twice."""


def check_writable(component: str, directory: Path) -> None:
    """Check before work starts that a component can write to its directory, which is created.

    Args:
        component: the name of the component, for the error.
        directory: the directory.

    Raises:
        ArgumentError: it cannot be created, or not be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise _not_writable_error(component, directory, error) from error


def claim_directory(component: str, directory: Path) -> DirectoryLock:
    """Check before work starts that a component, and no other run, can write to its directory.

    Args:
        component: the name of the component, for errors; each has a lock of its own.
        directory: the directory, which is created.

    Returns:
        The lock, which is held. Release it at the end of the run.

    Raises:
        ArgumentError: it cannot be created, or not be written to.
        RunError: another run writes there, or another component of that name.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> lock = claim_directory("my-logger", Path(tempfile.mkdtemp()))
        >>> lock.release()
    """
    check_writable(component, directory)
    lock = DirectoryLock(directory, f".{component}.lock")
    try:
        is_free = lock.acquire()
    except OSError as error:
        raise _not_writable_error(component, directory, error) from error
    if not is_free:
        raise RunError(
            f"{component!r} cannot write to {directory}: another run that is under way does, or "
            "another component or process of this one. Wait for it, or give each a directory of "
            f"its own: use({component!r}, directory=...)"
        )
    return lock


def _not_writable_error(component: str, directory: Path, error: OSError) -> ArgumentError:
    return ArgumentError(
        f"{component!r} cannot write to its directory {directory}: {error}. Choose another one: "
        f"use({component!r}, directory=...)"
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file, so that at any time it has the content from before or all of the new one.

    Args:
        path: the file.
        data: its new content.

    Raises:
        OSError: it cannot be written; it is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave neither
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


class DirectoryLock:
    """A lock on a directory, which the system releases when the process ends, however it ends.

    It survives that other code in this process opens and closes the file, as a copy of the
    directory does. Forked processes do not hold it.

    Args:
        directory: the directory.
        name: the name of the file in it that is locked.

    Attributes:
        unsupported: why the file system has no locks, so that only this process respects it; None
            where it has them.
    """

    def __init__(self, directory: Path, name: str = ".lock") -> None:
        self.unsupported: OSError | None = None
        self._path = directory / name
        self._descriptor: int | None = None
        self._resolved = ""

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock, and return whether that was possible: else another object holds it.

        Raises:
            OSError: the file cannot be opened.
        """
        resolved = os.path.join(os.path.realpath(self._path.parent), self._path.name)
        if resolved in _held:  # not even opened: closing the file may release the other's lock
            return False
        descriptor = self._open_and_lock()
        while descriptor is not None and not self._is_in_place(descriptor):
            os.close(descriptor)  # it was removed, by what had held it, before it was locked here
            descriptor = self._open_and_lock()
        if descriptor is None:
            return False
        self._descriptor, self._resolved = descriptor, resolved
        _held[resolved] = self
        return True

    def release(self) -> None:
        """Release the lock, if it is held, and remove its file."""
        if self._descriptor is not None:
            _held.pop(self._resolved, None)
            if self._is_in_place(self._descriptor):
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self._forget()

    def _open_and_lock(self) -> int | None:
        """Open the file and lock it, and return its descriptor; None if another object holds it.

        Raises:
            OSError: the file cannot be opened.
        """
        descriptor = os.open(self._path, _FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, f"{self._path.name} in it is no regular file")
            _lock(descriptor)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return None
                raise
            self.unsupported = error
        return descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        """Return whether an open file is the one in the directory, which others would lock."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except OSError:
            return False

    def _forget(self) -> None:
        """Close the file, of which a forked process has a copy that is not its own."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int) -> None:
    """Lock a file, not waiting for it.

    Raises:
        OSError: that is not possible.
    """
    if fcntl is not None:
        # of the open file: a process loses one of lockf() when it closes the file anywhere
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _forget_in_child() -> None:
    """Close the locks in a process that was forked, as a worker, which may outlive the run."""
    for lock in _held.values():
        lock._forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
