"""Checkpoints that all processes of a group write together, each the parts of tensors that it has.

Each process writes a file of its own into the temporary directory of a checkpoint. The main process
gives the directory its final name when the files of all are on the disk. It learns of that at once,
where all wait for it, or from records beside the files, so that threads need no collective.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ttl_checkpoint.errors import CheckpointError, os_reason
from ttl_checkpoint.files import sync_directory, write_durably
from ttl_checkpoint.finite import is_finite
from ttl_checkpoint.manifest import part_file
from ttl_checkpoint.store import Store, writing_error
from ttl_core import Group
from ttl_core.files import write_atomically

_CHUNK = 4 << 20  # bytes that are written at a time
_PATIENCE = 120.0  # seconds without a byte of another process; file systems hide new files for 60
_PATIENCE_AFTER_FAILURE = 10.0  # when that process may have ended
_POLLING = 0.02  # seconds
_TRIAL = ".tmp-trial"  # removed with what killed runs leave

Record = dict[str, Any]
"""What a process says of its file: "rank", "file" (size and digest), "finite", "error"."""


class GroupSave:
    """What one process does for a checkpoint that all write together.

    All processes have to make it. The main one creates the temporary directory.

    Args:
        group: the processes.
        store: the directory of checkpoints.
        about: what its manifest says about it.
        state: the state, with the parts that this process has to write.

    Raises:
        CheckpointError: the checkpoint cannot be begun; in all processes.

    Attributes:
        path: the temporary directory.
        is_main: whether this is the main process.
    """

    def __init__(
        self, group: Group, store: Store, about: Mapping[str, Any], state: dict[str, Any]
    ) -> None:
        self.is_main = group.is_main
        self._patience = _PATIENCE
        self._rank, self._size = group.rank, group.size
        self._parts: dict[int, torch.Tensor] = state.pop("parts")
        n_bytes = group.sum(sum(part.nbytes for part in self._parts.values()))
        begun: str | CheckpointError = ""
        if group.is_main:
            try:
                store.open()  # where that failed before
                begun = store.begin(about, state, n_more_bytes=n_bytes).name
            except CheckpointError as error:
                begun = error
        begun, self._token = group.broadcast((begun, uuid.uuid4().hex))
        if isinstance(begun, CheckpointError):
            raise begun
        self.path = store.directory / begun

    def write(self, model: Mapping[str, Any], buffers: Collection[str]) -> Record:
        """Write the file of this process, and return its record, also where that has failed.

        Args:
            model: the state of the model.
            buffers: the names of its buffers.
        """
        record: Record = {"rank": self._rank, "file": None, "finite": True, "error": None}
        try:
            record["finite"] = is_finite(self._with_parts(model), buffers)
            if self._parts:
                path = self.path / part_file(self._rank)
                record["file"] = write_durably(path, self._fill)
                sync_directory(self.path)
        except OSError as error:
            where = f"rank {self._rank} on {socket.gethostname()}"
            record["error"] = f"{where}: {os_reason(error)}"
        return record

    def _with_parts(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of a model with the parts that this process writes."""
        found = {}
        for name, value in model.items():
            found[name] = value
            described = value.get("distributed tensor") if isinstance(value, dict) else None
            if described is not None:
                parts = described["parts"]
                found[name] = [self._parts[at] for rank, at, *_ in parts if rank == self._rank]
        return found

    def _fill(self, file: Any) -> None:
        end = 0
        for at, part in self._parts.items():
            file.write(bytes(at - end))
            for chunk in _bytes_of(part):
                file.write(chunk)
            end = at + part.nbytes

    # -- without a collective ---------------------------------------------------------------

    def exchange(self, record: Record) -> list[Record]:
        """Leave a record for the main process; in that, wait for those of all others.

        Args:
            record: that of this process.

        Returns:
            The records of all processes in the main one, up to the first error; in others their
            own.

        Raises:
            CheckpointError: a process does not finish.
        """
        if self._rank:
            content = json.dumps({**record, "token": self._token}).encode()
            with contextlib.suppress(OSError):  # the main process then waits in vain
                write_atomically(self.path / _record_file(self._rank), content)
            return [record]
        records = [record]
        others = self._others()
        while not records[-1]["error"] and len(records) < self._size:
            records.append(next(others))
        return records

    def _others(self) -> Iterator[Record]:
        missing = set(range(1, self._size))
        before, since = -1, time.monotonic()
        while missing:
            for rank in sorted(missing):
                found = self._record_of(rank)
                if found is not None:
                    missing.remove(rank)
                    yield found
            now = sum(_size_of(self.path / part_file(rank)) for rank in missing) - len(missing)
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > self._patience:
                names = ", ".join(map(str, sorted(missing)))
                raise writing_error(
                    self.path, f"rank {names} has written nothing for {self._patience:g} seconds"
                )
            if missing:
                time.sleep(_POLLING)

    def _record_of(self, rank: int) -> Record | None:
        path = self.path / _record_file(rank)
        try:
            record: Record = json.loads(path.read_bytes())
            if record.pop("token") != self._token:  # of a process of another run
                return None
            path.unlink()
        except (OSError, ValueError):  # not there, or not as a whole
            return None
        return record

    def hurry(self) -> None:
        """Wait less long for others from now on, as the run has failed."""
        self._patience = min(self._patience, _PATIENCE_AFTER_FAILURE)

    # -- the end ----------------------------------------------------------------------------

    def check(self, records: Sequence[Record]) -> None:
        """Check that all processes have written what they should.

        Args:
            records: theirs.

        Raises:
            CheckpointError: one has not.
        """
        errors = [record["error"] for record in records if record["error"]]
        if errors:
            raise writing_error(self.path, "; ".join(errors))

    def files(self, records: Sequence[Record]) -> dict[str, Any]:
        """Return size and digest of each file, after a look at what is there.

        Args:
            records: those of all processes.

        Raises:
            CheckpointError: a file is not there as it was written.
        """
        found = {part_file(each["rank"]): each["file"] for each in records if each["file"]}
        for name, file in found.items():
            size = _size_of(self.path / name)
            if size != file["bytes"]:
                what = "does not see it" if size < 0 else f"sees {size} bytes"
                raise writing_error(
                    self.path,
                    f"{name} was written with {file['bytes']} bytes, but the main process {what}",
                )
        return found


def problem_of_directory(group: Group, directory: Path) -> CheckpointError | None:
    """Return the error of a directory that is not the same one in all processes; None if it is.

    Each process looks for what the main one writes. All have to call this, and get the same.

    Args:
        group: the processes.
        directory: the directory, which the main process has created.
    """
    trial = directory / _TRIAL
    token = group.broadcast(uuid.uuid4().hex)
    problem = None
    try:
        if group.is_main:
            os.mkdir(trial)
            os.close(os.open(trial / token, os.O_CREAT))
    except OSError as error:
        problem = os_reason(error)
    group.barrier()
    try:
        os.stat(trial / token)
        os.close(os.open(trial / str(group.rank), os.O_CREAT))
    except OSError as error:
        problem = problem or os_reason(error)
    problems = group.gather(problem and f"rank {group.rank} on {socket.gethostname()}: {problem}")
    if group.is_main:
        shutil.rmtree(trial, ignore_errors=True)
    found = [each for each in problems if each]
    if not found:
        return None
    return CheckpointError(
        f"not all processes can write to {directory}: {'; '.join(found)}. The model is shared out "
        "to them, so that each writes its parts of a checkpoint. Give a directory that all of them "
        "share"
    )


def _record_file(rank: int) -> str:
    return f"{part_file(rank)}.json"


def _size_of(path: Path) -> int:
    """Return the size of a file in bytes, -1 if it is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _bytes_of(tensor: torch.Tensor) -> Iterator[bytes]:
    """Yield what is in the memory of a tensor, a part at a time; NumPy may not be there for it."""
    plain = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    for start in range(0, plain.nbytes, _CHUNK):
        yield ctypes.string_at(plain.data_ptr() + start, min(_CHUNK, plain.nbytes - start))
