"""Files that are on the disk when they have been written, and reading them without surprises."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from ttl_checkpoint.errors import CheckpointError, CorruptError, os_reason, warn_once

_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)
_BUFFER = 1 << 18  # bytes; torch.save writes a few at a time where tensors are small
_OVERHEAD = 1 << 20  # bytes that the file of a state needs besides its tensors, about


# -- writing --------------------------------------------------------------------------------


class DigestingFile(io.FileIO):
    """A new file that counts and digests what is written to it.

    Args:
        path: the file, which must not exist.

    Attributes:
        error: the error of a failed write; None if none failed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, _WRITE_FLAGS, 0o666), "w")
        self.error: OSError | None = None
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: Any) -> int:
        """Write all of a buffer; return its size in bytes."""
        view = memoryview(data).cast("B")
        size = len(view)
        self._digest.update(view)
        self._size += size
        try:
            while view:
                view = view[os.write(self.fileno(), view) :]
        except OSError as error:
            self.error = error  # torch.save raises a RuntimeError instead of it
            raise
        return size

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self.fileno())

    def record(self) -> dict[str, Any]:
        """Return size and digest, as a manifest lists them."""
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}


def write_durably(path: Path, fill: Callable[[Any], object]) -> dict[str, Any]:
    """Write a new file to the disk.

    Args:
        path: the file.
        fill: writes the content to the binary file that it is called with.

    Returns:
        Its size and digest.

    Raises:
        OSError: it cannot be written.
    """
    with DigestingFile(path) as file:
        try:
            with io.BufferedWriter(file, _BUFFER) as buffered:
                fill(buffered)
                buffered.flush()
                file.sync()
        except RuntimeError:
            if file.error is None:
                raise
            raise file.error from None
        return file.record()


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk. Where that is impossible, it warns."""
    if os.name != "posix":  # elsewhere a directory cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
            raise
        warn_once(
            f"a file system cannot sync directories ({os_reason(error)}): a "
            "checkpoint may be lost if the machine itself fails just after it was saved"
        )
    finally:
        os.close(descriptor)


def check_free_space(directory: Path, state: Any, n_more_bytes: int = 0) -> None:
    """Check that a disk has room for a state.

    Args:
        directory: a directory on the disk.
        state: a nested value with tensors.
        n_more_bytes: how many bytes are written besides.

    Raises:
        OSError: it has not.
    """
    needed = sum(_storage_sizes(state).values()) + n_more_bytes + _OVERHEAD
    free = shutil.disk_usage(directory).free
    if free < needed:
        for digits in range(7):  # as many as it takes to see the difference
            texts = [f"{size / 1e6:.{digits}f} MB" for size in (needed, free)]
            if texts[0] != texts[1]:
                break
        raise OSError(errno.ENOSPC, f"it needs {texts[0]}, but {texts[1]} are free")


def _storage_sizes(state: Any) -> dict[int, int]:
    """Return the size in bytes of each storage that tensors in a nested value use."""
    sizes = {}
    values = [state]
    while values:
        value = values.pop()
        if isinstance(value, dict):  # as each mapping is that a state may hold
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value
        elif isinstance(value, torch.Tensor):
            if value.layout is torch.strided:
                storage = value.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
            elif value.is_sparse:
                sizes[id(value)] = value.element_size() * value._nnz()
    return sizes


# -- reading --------------------------------------------------------------------------------


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; follow no link, and wait for no pipe.

    Raises:
        CorruptError: it is no regular file.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, _READ_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptError(f"{path.parent} is corrupt: {path.name} is no regular file")
    return os.fdopen(descriptor, "rb")


@contextlib.contextmanager
def explaining_os_errors(path: Path) -> Iterator[None]:
    """Turn errors of the system into errors about a checkpoint.

    Args:
        path: the directory of the checkpoint.

    Raises:
        CorruptError: something in it is missing, or of the wrong type.
        CheckpointError: it cannot be read.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptError(f"{path} is corrupt: {os_reason(error)}") from error
    except CheckpointError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError(f"{path} is corrupt: {error.filename} is a link") from error
        raise CheckpointError(f"{path} cannot be read: {os_reason(error)}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path} cannot be read: memory is short") from error
