"""The files of runs that are offline."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE_HEADER = 7  # bytes
_BLOCK = 32 * 1024
_HEADER = struct.Struct("<IHB")  # of each part of a record: check sum, length, kind
_FULL, _LAST = 1, 4  # kinds of parts with which a record ends


def n_rows(directory: Path, run_id: str) -> int:
    """Return how many rows a run has in the offline files of a directory.

    Args:
        directory: the directory in which wandb has its folder "wandb".
        run_id: the identifier of the run.
    """
    files = directory.glob(f"wandb/offline-run-*-{run_id}*/run-{run_id}.wandb")
    return max((step + 1 for file in files for step, _ in read_rows(file)), default=0)


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each row in an offline file, and its values by name, as JSON.

    Args:
        file: the path of the file, as "run-<identifier>.wandb".
    """
    return OfflineFile(file).new_rows()


class OfflineFile:
    """The file of one run, into which wandb writes while it is read.

    It is a log of LevelDB, in blocks of 32 KiB, into which records are cut.

    Args:
        path: the path of the file, as "run-<identifier>.wandb".
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = _FILE_HEADER  # behind the last record that was read

    def new_rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the number of each row since the last call, and its values by name, as JSON."""
        from wandb.proto import wandb_internal_pb2

        messages: Any = wandb_internal_pb2  # without types
        for data in self.new_records():
            record = messages.Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                values = {
                    item.key or ".".join(item.nested_key): item.value_json
                    for item in record.history.item
                }
                yield record.history.step.num, values

    def new_records(self) -> Iterator[bytes]:
        """Yield the records since the last call, up to one that is not whole yet."""
        if not self._path.exists():  # wandb's process makes it
            return
        with self._path.open("rb") as file:
            start = place = file.seek(self._place)
            data = file.read()
        record = b""
        while place + _HEADER.size <= start + len(data):
            rest = _BLOCK - place % _BLOCK
            if rest < _HEADER.size:  # filled up
                place += rest
                continue
            _, length, kind = _HEADER.unpack_from(data, place - start)
            place += _HEADER.size
            if not kind or place + length > start + len(data):
                return
            record += data[place - start : place - start + length]
            place += length
            if kind in (_FULL, _LAST):
                self._place = place
                yield record
                record = b""
