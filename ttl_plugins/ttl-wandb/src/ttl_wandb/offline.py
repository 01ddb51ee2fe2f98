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
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # without types
    for data in read_records(file):
        record = messages.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or ".".join(item.nested_key): item.value_json
                for item in record.history.item
            }
            yield record.history.step.num, values


def read_records(file: Path) -> Iterator[bytes]:
    """Yield the records of a file, up to one that is cut off, as where a process was killed.

    It is a log of LevelDB, in blocks of 32 KiB, into which records are cut.

    Args:
        file: the path of the file.
    """
    data = file.read_bytes()
    place, record = _FILE_HEADER, b""
    while place + _HEADER.size <= len(data):
        rest = _BLOCK - place % _BLOCK
        if rest < _HEADER.size:  # filled up
            place += rest
            continue
        _, length, kind = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        if not kind or place + length > len(data):
            return
        record += data[place : place + length]
        place += length
        if kind in (_FULL, _LAST):
            yield record
            record = b""
