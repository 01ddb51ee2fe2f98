"""A directory of checkpoints, each of which is complete or not there at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ttl_checkpoint.errors import CheckpointError, os_reason
from ttl_checkpoint.files import check_free_space, sync_directory, write_durably
from ttl_checkpoint.lock import DirectoryLock
from ttl_checkpoint.manifest import (
    MANIFEST_FILE,
    NAME,
    STATE_FILE,
    UNPROVEN_FILE,
    encode,
    read_manifest,
)
from ttl_core.arguments import absolute_path

_TEMPORARY = ".tmp-"
_REMOVED = f"{_TEMPORARY}removed-"
_LONGEST_NAME = f"crash-{0:09}-epoch-{0:09}-step-{0:012}-rank-{0:05}"
# what killed runs leave; other names that begin so are not touched
_LEFTOVER = re.compile(rf"{_TEMPORARY}(removed-)?({NAME.pattern})|{_TEMPORARY}trial")


@dataclass(frozen=True, slots=True)  # without a __dict__, so that no walk for state goes into it
class _Manifest:
    """A manifest that was written or read, and what its file was then."""

    file: object
    content: Mapping[str, Any]


class Store:
    """A directory of checkpoints.

    A checkpoint is a directory in it, NUMBER-epoch-E-step-S, with the state, maybe in several
    files, and a manifest that has their sizes and digests. It is written under a temporary name,
    and renamed when all of it is on the disk. Nothing in it is ever changed.

    Args:
        directory: the directory. It is made absolute here, so that a later chdir() changes nothing.

    Raises:
        ArgumentError: it is no path.

    Attributes:
        directory: the absolute path of the directory.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = absolute_path("directory", directory)
        self._lock = DirectoryLock(self.directory)
        self._manifests: dict[Path, _Manifest] = {}  # those that were written or read

    # -- access -----------------------------------------------------------------------------

    def open(self) -> None:
        """Create and lock the directory, and remove what killed runs left unfinished.

        Raises:
            CheckpointError: the directory cannot be written to.
            RunError: another run writes to it.
        """
        if self._lock.is_held:
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            for name in filter(_LEFTOVER.fullmatch, os.listdir(self.directory)):
                self._remove_leftover(name)
            self._try_longest_path()
        except OSError as error:
            self.close()
            raise CheckpointError(
                f"no checkpoint can be written to {self.directory}: {os_reason(error)}. Give "
                "another directory, or make that one writable"
            ) from error

    def _remove_leftover(self, name: str) -> None:
        leftover = self.directory / name
        if not stat.S_ISDIR(os.lstat(leftover).st_mode):  # nothing that a run has left
            raise OSError(errno.ENOTDIR, f"{name} in it is no directory")
        shutil.rmtree(leftover)

    def _try_longest_path(self) -> None:
        """Write and remove a file with a path as long as any that a run will need."""
        trial = self.directory / f"{_REMOVED}{_LONGEST_NAME}"
        os.mkdir(trial)
        try:
            os.close(os.open(trial / MANIFEST_FILE, os.O_CREAT | os.O_EXCL, 0o666))
            os.unlink(trial / MANIFEST_FILE)
        finally:
            os.rmdir(trial)

    def close(self) -> None:
        """Unlock the directory."""
        self._lock.release()

    # -- changes ----------------------------------------------------------------------------

    def write(
        self,
        state: Mapping[str, Any],
        about: Mapping[str, Any],
        *,
        crash: bool,
        is_unproven: bool = False,
    ) -> Path:
        """Write a checkpoint. It is on the disk when this returns.

        Args:
            state: the state.
            about: what its manifest says about it; "epoch" and "step" are part of its name, and
                "rank" where it is there.
            crash: whether it is one to inspect, not to resume from.
            is_unproven: whether resuming is to prefer others until its mark is removed.

        Returns:
            Its directory.

        Raises:
            CheckpointError: it cannot be written. Nothing of it is left, and nothing else changed.
        """
        temporary = self.begin(about, state, crash=crash)
        return self.commit(temporary, state, about, is_unproven=is_unproven)

    def begin(
        self,
        about: Mapping[str, Any],
        state: Mapping[str, Any],
        *,
        crash: bool = False,
        n_more_bytes: int = 0,
    ) -> Path:
        """Create the temporary directory of a checkpoint, where there is room for it.

        Args:
            about: as for `write`.
            state: as for `write`.
            crash: as for `write`.
            n_more_bytes: how many bytes are written besides the state.

        Returns:
            The temporary directory.

        Raises:
            CheckpointError: it cannot be created.
        """
        number = 1 + max((int(entry["number"]) for entry in self._entries()), default=0)
        name = f"{number:06}-epoch-{about['epoch']}-step-{about['step']}"
        if "rank" in about:
            name += f"-rank-{about['rank']}"
        temporary = self.directory / f"{_TEMPORARY}{'crash-' * crash}{name}"
        with self._discarding(temporary):
            check_free_space(self.directory, state, n_more_bytes)
            os.mkdir(temporary)
        return temporary

    def commit(
        self,
        temporary: Path,
        state: Mapping[str, Any],
        about: Mapping[str, Any],
        files: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        *,
        is_unproven: bool = False,
    ) -> Path:
        """Write what is left of a checkpoint, and give it its name. It is then on the disk.

        Args:
            temporary: what `begin` returned.
            state: as for `write`.
            about: as for `write`.
            files: size and digest of the files that are there already, by name.
            is_unproven: as for `write`.

        Returns:
            Its directory.

        Raises:
            CheckpointError: it cannot be written. Nothing of it is left, and nothing else changed.
        """
        final = _final(temporary)
        with self._discarding(temporary):
            record = write_durably(
                temporary / STATE_FILE, lambda file: torch.save(dict(state), file)
            )
            manifest = encode(about, {STATE_FILE: record, **files})
            write_durably(temporary / MANIFEST_FILE, lambda file: file.write(manifest))
            if is_unproven:
                (temporary / UNPROVEN_FILE).touch()
            sync_directory(temporary)
            os.rename(temporary, final)
            sync_directory(self.directory)
            self._manifests[final] = _Manifest(_file_identity(final), json.loads(manifest))
        return final

    def discard(self, temporary: Path) -> None:
        """Remove a checkpoint that was begun."""
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary)

    @contextlib.contextmanager
    def _discarding(self, temporary: Path) -> Iterator[None]:
        """Remove what was begun if a with block fails, and say so of an error of the system."""
        try:
            yield
        except BaseException as error:
            self.discard(temporary)
            if not isinstance(error, OSError):
                raise
            raise writing_error(temporary, os_reason(error)) from error

    def remove(self, path: Path) -> None:
        """Remove a checkpoint; no part of it is ever left under its name."""
        removed = self.directory / f"{_REMOVED}{path.name}"
        os.rename(path, removed)
        self._manifests.pop(path, None)
        try:
            for name in (STATE_FILE, MANIFEST_FILE):  # what is in it, as a rule
                os.unlink(removed / name)
            os.rmdir(removed)
        except OSError:
            shutil.rmtree(removed)

    def set_aside(self, path: Path) -> Path:
        """Rename a corrupt checkpoint so that it is not tried again; return the new path."""
        aside = path.with_name(f"corrupt-{path.name}")
        with contextlib.suppress(OSError):  # in a read-only directory it keeps its name
            os.rename(path, aside)
            return aside
        return path

    # -- content ----------------------------------------------------------------------------

    def manifest(self, path: Path) -> Mapping[str, Any]:
        """Return the manifest of a checkpoint, checked; it is read again if its file has changed.

        Args:
            path: the checkpoint.

        Raises:
            CorruptError: it is not what was written.
            CheckpointError: it cannot be read.
        """
        identity = _file_identity(path)
        known = self._manifests.get(path)
        if known is None or identity is None or known.file != identity:
            known = self._manifests[path] = _Manifest(identity, read_manifest(path))
        return known.content

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints to resume from, newest first, without checking them."""
        return self._paths("")[::-1]

    def crashes(self) -> list[Path]:
        """Return what was written after exceptions, newest first."""
        return self._paths("crash-")[::-1]

    def everything(self) -> list[Path]:
        """Return all of them, oldest first, with crashes and those that were set aside."""
        return self._paths("", "crash-", "corrupt-")

    def _paths(self, *kinds: str) -> list[Path]:
        entries = [entry for entry in self._entries() if (entry["kind"] or "") in kinds]
        return [self.directory / entry.string for entry in entries]

    def _entries(self) -> list[re.Match[str]]:
        """Return the matches of names that checkpoints have, in the order of their numbers.

        Raises:
            CheckpointError: the directory cannot be read.
        """
        try:
            names = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {os_reason(error)}") from error
        found = [match for name in names if (match := NAME.fullmatch(name))]
        return sorted(found, key=lambda entry: (int(entry["number"]), entry.string))


def writing_error(temporary: Path, reason: str) -> CheckpointError:
    """Return the error of a checkpoint that cannot be written.

    Args:
        temporary: its temporary directory.
        reason: why.
    """
    return CheckpointError(
        f"checkpoint {_final(temporary)} cannot be written: {reason}. Earlier checkpoints "
        "are unharmed. Make room or fix the directory, and start the same script again; "
        "on_failure='warn' continues training without it"
    )


def _final(temporary: Path) -> Path:
    return temporary.with_name(temporary.name.removeprefix(_TEMPORARY))


def _file_identity(path: Path) -> object:
    """Return what changes when the manifest of a checkpoint does; None if it cannot be found."""
    try:
        file = os.lstat(path / MANIFEST_FILE)
    except OSError:
        return None
    return file.st_mode, file.st_ino, file.st_size, file.st_mtime_ns
