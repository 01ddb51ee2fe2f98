"""Event files of TensorBoard, to which several events are added at a time, or none."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\..*")


class EventFile:
    """A new event file, which TensorBoard reads after those that are in its directory.

    It is not one of tensorboard's EventFileWriter, for three reasons: that one writes in a thread,
    so that what is queued is lost where the disk is full; it takes its check sums byte by byte in
    Python, 80 µs for a step of ten values; and files of the same second are read in the order of
    their process numbers.

    Args:
        directory: the directory, which is created if it does not exist.

    Attributes:
        path: the path of the file.
        size: how many bytes have been written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        found = [_NAME.fullmatch(path.name) for path in directory.iterdir()]
        newest = max((int(match[1]) for match in found if match), default=0)
        seconds = max(int(time.time()), newest + 1)  # TensorBoard reads them in this order
        name = f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{os.getpid()}.ttl"
        self.path = directory / name
        self.size = 0
        self.path.touch(exist_ok=False)

    def append(self, data: bytes | bytearray) -> None:
        """Add events to the file.

        Args:
            data: the events, each as `framed` returns it.

        Raises:
            OSError: they could not be written; the file is as it was.
        """
        with open_unbuffered(self.path) as file:
            file.seek(self.size)
            rest = memoryview(data)
            try:
                while rest:  # a disk that becomes full takes a part
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(self.size)
                raise
        self.size += len(data)


def read_events(path: Path, place: Mapping[str, Any]) -> bytes:
    """Return the bytes of some events of a file; none if it does not have all of them.

    Args:
        path: the path of the file.
        place: where they "begin" and "end".
    """
    size = place["end"] - place["begin"]
    try:
        with path.open("rb") as file:
            file.seek(place["begin"])
            data = file.read(size)
    except FileNotFoundError:  # a directory that was not moved with its checkpoints
        return b""
    return data if len(data) == size else b""


def framed(event: bytes) -> bytes:
    """Return an event as it is in a file: with its length, and check sums of both.

    Args:
        event: the serialized event.
    """
    return b"".join((_framed_length(len(event)), event, _check_sum(event)))


@lru_cache
def _framed_length(size: int) -> bytes:
    """Return the length of an event and its check sum; most events have that of another one."""
    length = struct.pack("<Q", size)
    return length + _check_sum(length)


def _check_sum(data: bytes) -> bytes:
    # masked, as TFRecord files demand: they may hold data with check sums of their own
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def open_unbuffered(path: Path) -> FileIO:
    """Open a file that exists, so that what cannot be written raises at once."""
    return FileIO(path, "r+b")
