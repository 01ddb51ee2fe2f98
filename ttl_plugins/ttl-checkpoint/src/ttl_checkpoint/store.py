"""Checkpoints on disk: each a directory that is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from ttl_core import RunError, TTLError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
_STATE, _MANIFEST = "state.pt", "manifest.json"
_FORMAT = 1
_NAME = re.compile(r"(?P<kind>crash-|corrupt-)?(?P<number>\d{6,})-epoch-\d+-step-\d+")
_TEMPORARY = ".tmp-"
# what the file of a state needs besides its tensors, about
_OVERHEAD = 1 << 20
_MAX_MANIFEST = 16 << 20


class CheckpointError(TTLError, OSError):
    """Say which checkpoint cannot be written or read, and why."""


class CorruptError(CheckpointError):
    """Say what is wrong with a checkpoint on disk."""


class Store:
    """Write and read the checkpoints of a directory.

    A checkpoint is a directory, NUMBER-epoch-E-step-S, with the state and a manifest that has the
    size and the digest of it. It is written beside its place and comes there by being renamed when
    all of it is on the disk; nothing in it is ever changed.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._lock: int | None = None

    # -- who may write ----------------------------------------------------------------------

    def open(self) -> None:
        """Make the directory, keep others from writing to it, and clear up after who was killed.

        Raises:
            CheckpointError: the directory cannot be written to.
            RunError: another run writes to it.
        """
        if self._lock is not None:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.directory)
            for leftover in self.directory.glob(f"{_TEMPORARY}*"):
                shutil.rmtree(leftover)
            trial = self.directory / f"{_TEMPORARY}trial"
            os.mkdir(trial)
            os.rmdir(trial)
        except OSError as error:
            self.close()
            raise CheckpointError(
                f"no checkpoint can be written to {self.directory}: {_reason(error)}. Give "
                "another directory, or make that one writable"
            ) from error

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            del _held[self._lock]
            self._lock = None

    # -- writing ----------------------------------------------------------------------------

    def write(self, state: Mapping[str, Any], about: Mapping[str, Any], *, crash: bool) -> Path:
        """Write a checkpoint. It is on the disk for good when this returns.

        Args:
            state: what to write.
            about: what its manifest shall say of it; "epoch" and "step" among that.
            crash: whether it is one to look into, not to go on from.

        Returns:
            Where it is.

        Raises:
            CheckpointError: it cannot be written. Nothing of it is left, and nothing else changed.
        """
        number = 1 + max((int(entry["number"]) for entry in self._entries()), default=0)
        name = f"{number:06}-epoch-{about['epoch']}-step-{about['step']}"
        final = self.directory / f"{'crash-' * crash}{name}"
        temporary = self.directory / f"{_TEMPORARY}{name}"
        try:
            self._check_space(state)
            os.mkdir(temporary)
            file = _write(temporary / _STATE, lambda stream: torch.save(dict(state), stream))
            manifest = _dump({"format": _FORMAT, **about, "files": {_STATE: file}})
            _write(temporary / _MANIFEST, lambda stream: stream.write(manifest))
            _sync_directory(temporary)
            os.rename(temporary, final)
            _sync_directory(self.directory)
        except BaseException as error:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)
            if not isinstance(error, OSError):
                raise
            raise CheckpointError(
                f"checkpoint {final} cannot be written: {_reason(error)}. Those before it are "
                "unharmed. Make room or mend the directory, and start the same script again; "
                "on_failure='warn' trains on without it"
            ) from error
        return final

    def remove(self, path: Path) -> None:
        """Remove a checkpoint, which is gone at once and as a whole."""
        gone = self.directory / f"{_TEMPORARY}removed-{path.name}"
        os.rename(path, gone)
        shutil.rmtree(gone)

    def set_aside(self, path: Path) -> Path:
        """Give a corrupt checkpoint a name that is not looked at again; return the new path."""
        aside = path.with_name(f"corrupt-{path.name}")
        with contextlib.suppress(OSError):  # a directory that is only read stays as it is
            os.rename(path, aside)
            return aside
        return path

    def _check_space(self, state: Any) -> None:
        needed = sum(_sizes(state).values()) + _OVERHEAD
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise OSError(
                errno.ENOSPC, f"it needs {needed / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free"
            )

    # -- reading ----------------------------------------------------------------------------

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints to go on from, newest first, be they whole or not."""
        return [self._path(entry) for entry in reversed(self._entries()) if not entry["kind"]]

    def crashes(self) -> list[Path]:
        """Return what was written after exceptions, newest first."""
        entries = reversed(self._entries())
        return [self._path(entry) for entry in entries if entry["kind"] == "crash-"]

    def everything(self) -> list[Path]:
        """Return all of them in order, with those from crashes and those set aside."""
        return [self._path(entry) for entry in self._entries()]

    def _path(self, entry: re.Match[str]) -> Path:
        return self.directory / entry.string

    def _entries(self) -> list[re.Match[str]]:
        """Return the names that checkpoints have, in the order of their numbers."""
        try:
            names = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [match for name in names if (match := _NAME.fullmatch(name))]
        return sorted(found, key=lambda entry: (int(entry["number"]), entry.string))


def verify(path: Path) -> dict[str, Any]:
    """Check a checkpoint against its manifest, every byte of it.

    Args:
        path: the directory of the checkpoint.

    Returns:
        The manifest.

    Raises:
        CorruptError: it is not what was written.
        CheckpointError: it cannot be read.
    """
    with _opened(path) as (manifest, _):
        return manifest


def read(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint, checked against its manifest.

    Args:
        path: the directory of the checkpoint.

    Raises:
        CorruptError: it is not what was written.
        CheckpointError: it cannot be read.
    """
    with _opened(path) as (_, stream):
        try:
            state = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # what a hostile file makes torch raise may be anything
            text = str(error).splitlines()[0]
            raise CorruptError(f"{path} is corrupt: torch refuses {_STATE}: {text}") from error
    if not isinstance(state, dict):
        raise CorruptError(f"{path} is corrupt: {_STATE} holds a {type(state).__name__}")
    return state


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint, checked in itself but not against the state.

    Args:
        path: the directory of the checkpoint.

    Raises:
        CorruptError: it is not what was written.
        CheckpointError: it cannot be read.
    """
    with _explained(path):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise CorruptError(f"{path} is corrupt: it is no directory")
        with _open_plainly(path / _MANIFEST) as stream:
            text = stream.read(_MAX_MANIFEST + 1)
    try:
        manifest = json.loads(text)
        plain = {key: value for key, value in manifest.items() if key != "sha256"}
        is_ours = len(text) <= _MAX_MANIFEST and _dump(plain) == text and _is_ours(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise CorruptError(f"{path} is corrupt: {_MANIFEST} is not what was written")
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest.get('format')!r}, this ttl-checkpoint reads {_FORMAT}. "
            "Install the version that wrote it"
        )
    return dict(manifest)


def is_text(text: str) -> bool:
    """Tell whether a text does nothing to a terminal but stand there."""
    return not any(unicodedata.category(character).startswith("C") for character in text)


def _is_ours(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a manifest holds what is asked of one, of the kinds that are written."""
    kinds = {
        "format": int,
        "epoch": int,
        "step": int,
        "reason": str,
        "run": str,
        "best": float | int | None,
        "metrics": dict,
        "components": list,
        "files": dict,
    }
    texts = manifest["reason"], *manifest["metrics"]
    records = manifest["components"]
    return (
        all(isinstance(manifest[name], kind) for name, kind in kinds.items())
        and all(is_text(text) for text in texts)
        and all(isinstance(value, float | int | str) for value in manifest["metrics"].values())
        and all(record.keys() >= {"name", "version", "enabled"} for record in records)
        and list(manifest["files"]) == [_STATE]
        and manifest["files"][_STATE].keys() >= {"bytes", "sha256"}
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], BufferedReader]]:
    """Check a checkpoint, and open what was checked: something else may come in its place."""
    manifest = read_manifest(path)
    with _explained(path):
        extra = set(os.listdir(path)) - {_STATE, _MANIFEST}
        stream = _open_plainly(path / _STATE)
    with stream:
        expected = manifest["files"][_STATE]
        size = os.fstat(stream.fileno()).st_size
        if extra:
            raise CorruptError(f"{path} is corrupt: {', '.join(sorted(extra))} was added to it")
        if size != expected["bytes"]:
            what = f"{_STATE} has {size} bytes, written were {expected['bytes']}"
            raise CorruptError(f"{path} is corrupt: {what}")
        with _explained(path):
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
        if digest != expected["sha256"]:
            raise CorruptError(f"{path} is corrupt: the digest of {_STATE} is another one")
        yield manifest, stream


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptError(f"{path} is corrupt: {_reason(error)}") from error
    except CheckpointError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError(f"{path} is corrupt: {error.filename} is a link") from error
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error


def _open_plainly(path: Path) -> BufferedReader:
    """Open a regular file; no link is followed, and no pipe waited for."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptError(f"{path.parent} is corrupt: {path.name} is no regular file")
    return os.fdopen(descriptor, "rb")


# -- files ----------------------------------------------------------------------------------


class _DigestingFile:
    """Be a file to write to that knows the size and the digest of what was written."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o666)
        self._digest = hashlib.sha256()
        self._size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        n = len(view)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self.error = error  # torch makes a RuntimeError of it
            raise
        self._size += n
        return n

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def record(self) -> dict[str, Any]:
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}


def _write(path: Path, fill: Any) -> dict[str, Any]:
    """Write a file to the disk and return its size and digest."""
    file = _DigestingFile(path)
    try:
        fill(file)
        file.sync()
    except RuntimeError:
        if file.error is None:
            raise
        raise file.error from None
    finally:
        file.close()
    return file.record()


def _dump(manifest: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON with its own digest: there is one way to write it, byte by byte."""
    content = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(content.encode()).hexdigest()
    text = json.dumps({**manifest, "sha256": digest}, indent=1, sort_keys=True, allow_nan=False)
    return text.encode() + b"\n"


def _sync_directory(path: Path) -> None:
    if os.name != "posix":  # elsewhere a directory cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sizes(state: Any) -> dict[int, int]:
    """Return the bytes of each storage that the tensors in a nested value lie in."""
    if isinstance(state, torch.Tensor):
        if state.layout is not torch.strided:
            return {id(state): state.element_size() * state._nnz() if state.is_sparse else 0}
        storage = state.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    values = state.values() if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping | list | tuple):
        return {}
    return {key: size for value in values for key, size in _sizes(value).items()}


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


# -- one writer at a time -------------------------------------------------------------------

_held: dict[int, str] = {}
"""The locks of this process, and where. To who has one the system would grant it again."""


def _lock(directory: Path) -> int:
    """Take a lock that is gone with this process, however it ends; return its file descriptor."""
    taken = RunError(
        f"another run, or another component of this one, saves into {directory}. Give each a "
        "directory of its own"
    )
    place = os.path.realpath(directory)
    if place in _held.values():  # not even opened: closing it would let go of the lock
        raise taken
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(directory / ".lock", flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EEXIST, ".lock in it is no regular file")
        if fcntl is not None:
            # not flock(), which workers that were forked would hold on to
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise taken from None
        raise
    _held[descriptor] = place
    return descriptor
