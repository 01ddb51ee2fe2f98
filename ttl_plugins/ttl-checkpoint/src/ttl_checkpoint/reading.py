"""Reading a checkpoint, every byte of which is checked against its manifest."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import zipfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from ttl_checkpoint.errors import CheckpointError, CorruptError, printable
from ttl_checkpoint.files import explaining_os_errors, open_regular
from ttl_checkpoint.manifest import (
    MANIFEST_FILE,
    PART_FILE,
    STATE_FILE,
    UNPROVEN_FILE,
    read_manifest,
)
from ttl_core import StateError, attach_parts, check_state

# files that file systems and file managers add by themselves
_OF_SYSTEMS = re.compile(
    r"\.DS_Store|\._.*|\.nfs[0-9a-fA-F]+|\.fuse_hidden[0-9a-fA-F]+|Thumbs\.db|desktop\.ini"
)
_OTHERWISE = "resume= and the path of another checkpoint"


def verify(path: Path) -> dict[str, Any]:
    """Check a checkpoint against its manifest.

    Args:
        path: the directory of the checkpoint.

    Returns:
        The manifest.

    Raises:
        CorruptError: it is not what was written.
        CheckpointError: it cannot be read.
    """
    with _verified(path) as (manifest, _, _):
        return manifest


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint, checked against its manifest; see `read_checkpoint`."""
    return read_checkpoint(path)[1]


def read_checkpoint(
    path: Path, *, are_parts_verified: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the state of a checkpoint, which are checked.

    Tensors that several processes have written together are read when they are needed.

    Args:
        path: the directory of the checkpoint.
        are_parts_verified: whether another process has just compared the digests of those.

    Raises:
        CorruptError: it is not what was written.
        CheckpointError: it cannot be read or loaded, for another reason.
    """
    with _verified(path, are_parts_verified) as (manifest, stream, parts):
        try:
            _check_archive(stream)
            state = torch.load(stream, map_location="cpu", weights_only=True)
            if parts:
                state = attach_parts(state, {rank: _mapped(file) for rank, file in parts.items()})
        except Exception as error:  # a hostile file can make torch raise anything
            text = printable(next(iter(str(error).splitlines()), type(error).__name__))
            raise CheckpointError(
                f"{path} cannot be loaded, though every byte is as it was written: torch refuses "
                f"{STATE_FILE}: {text}. It stays where it is. If memory was short, free some and "
                f"start the same script again; else {_OTHERWISE}"
            ) from error
    try:  # a matching digest does not prove that a loop wrote it: it is made as easily
        check_state(state, allow_unsafe=True)
    except StateError as error:
        raise CheckpointError(
            f"{path} cannot be loaded: {printable(error)}. "
            f"Start the same script again with {_OTHERWISE}"
        ) from None
    return manifest, state


def _mapped(stream: BufferedReader) -> mmap.mmap:
    """Return what a file holds, of which no more is read than is used; the file is not changed."""
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)


def _check_archive(stream: BufferedReader) -> None:
    """Check that the file of a state is an archive that is no larger when it is unpacked.

    Raises:
        ValueError: it is not.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(stream) as archive:
        size = sum(member.file_size for member in archive.infolist())
        is_stored = all(m.compress_type == zipfile.ZIP_STORED for m in archive.infolist())
    if not is_stored or size > os.fstat(stream.fileno()).st_size:
        raise ValueError("it is compressed, as torch.save() writes no file")
    stream.seek(0)


@contextlib.contextmanager
def _verified(
    path: Path, are_parts_verified: bool = False
) -> Iterator[tuple[dict[str, Any], BufferedReader, dict[int, BufferedReader]]]:
    """Yield manifest and open files of a checkpoint, checked: the state, and parts by rank.

    The files stay open, so that what is loaded is what was checked, even if they are replaced.
    """
    manifest = read_manifest(path)
    files = manifest["files"]
    with contextlib.ExitStack() as stack:
        with explaining_os_errors(path):
            extra = {
                name
                for name in os.listdir(path)
                if name not in (*files, MANIFEST_FILE, UNPROVEN_FILE)
                and not _OF_SYSTEMS.fullmatch(name)
            }
            streams = {name: stack.enter_context(open_regular(path / name)) for name in files}
        if extra:
            names = printable(", ".join(sorted(extra)))
            raise CorruptError(f"{path} is corrupt: {names} was added to it")
        for name, stream in streams.items():
            is_verified = are_parts_verified and name != STATE_FILE
            _check_content(path, name, stream, files[name], with_digest=not is_verified)
        state = streams.pop(STATE_FILE)
        yield manifest, state, {_rank_of(name): stream for name, stream in streams.items()}


def _check_content(
    path: Path, name: str, stream: BufferedReader, expected: Any, *, with_digest: bool
) -> None:
    """Check size and digest of a file of a checkpoint.

    Raises:
        CorruptError: they are not what was written.
    """
    size = os.fstat(stream.fileno()).st_size
    if size != expected["bytes"]:
        raise CorruptError(
            f"{path} is corrupt: {name} has {size} bytes, written were {expected['bytes']}"
        )
    if not with_digest:
        return
    with explaining_os_errors(path):
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
    if digest != expected["sha256"]:
        raise CorruptError(f"{path} is corrupt: {name} has another digest")


def _rank_of(name: str) -> int:
    found = PART_FILE.fullmatch(name)
    assert found is not None  # the manifest was checked
    return int(found["rank"])
