"""A file of rows that survives kills, full disks, and what other programs do to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path


class LostRowsError(OSError):
    """A file does not have the rows that were written to it."""


class RowFile:
    """A file of rows, one a line, after a header. Its last row can be replaced.

    It is opened for each operation, so that nothing is left open, and what happened to it
    meanwhile is seen. A row is in the file completely or not at all: one that could not be written
    completely is removed again, and a row that is replaced is written over, not removed first.

    Args:
        path: the path of the file.

    Attributes:
        path: the path of the file.
        n_rows: how many rows there are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self._last = b""  # the last row; empty if it cannot be replaced
        self._header_size = 0
        self._end = 0  # the size of the file
        self._is_torn = False  # whether part of a row is in the file, after a failure

    def create(self, header: bytes = b"") -> Path | None:
        """Create the file.

        Args:
            header: what it begins with.

        Returns:
            The path to which a file that was there is moved; None if there was none.
        """
        moved_to = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            names = (f"{self.path.stem}.{n}{self.path.suffix}" for n in itertools.count(1))
            moved_to = next(p for p in map(self.path.with_name, names) if not p.exists())
            self.path.rename(moved_to)
        self.path.write_bytes(header)
        self.n_rows, self._last, self._is_torn = 0, b"", False
        self._end = self._header_size = len(header)
        return moved_to

    def write(self, rows: bytes, n_rows: int, last: bytes, *, replaces_last: bool = False) -> None:
        """Write rows to the end of the file, and leave it unchanged if that fails.

        Args:
            rows: the rows.
            n_rows: how many they are.
            last: the last of them.
            replaces_last: whether the first of them replaces the last row of the file. It is no
                shorter than that.

        Raises:
            LostRowsError: something else has shortened the file.
            FileNotFoundError: something else has removed it.
            OSError: they cannot be written, or something else writes to the file.
        """
        with self._opened() as file:
            start = self._end - len(self._last) * replaces_last
            try:
                _write_at(file, start, rows)
            except BaseException:
                self._is_torn = True
                with contextlib.suppress(OSError):
                    self._restore(file)
                raise
        self._end = start + len(rows)
        self._last = last
        self.n_rows += n_rows - replaces_last

    def replace_header(self, header: bytes, padding: bytes) -> None:
        """Replace the header, and extend each row, in a new file that takes the place of this one.

        Args:
            header: the new header.
            padding: what each row is extended by, before its line break.

        Raises:
            LostRowsError: something else has shortened the file.
            FileNotFoundError: something else has removed it.
            OSError: the new file cannot be written; the old one is unchanged then.
        """
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with self._opened(), self.path.open("rb") as old, temporary.open("wb") as new:
                old.seek(self._header_size)
                new.write(header)
                new.writelines(line[:-1] + padding + b"\n" for line in old)
                new.flush()
                os.fsync(new.fileno())  # else a power failure may leave neither file
                end = new.tell()
            shutil.copymode(self.path, temporary)
            temporary.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._header_size, self._end = len(header), end
        self._last = self._last and self._last[:-1] + padding + b"\n"

    def cut(self, n_rows: int, last: bytes, mark: bytes, header_size: int = 0) -> None:
        """Remove all rows but the first ones.

        Args:
            n_rows: how many of them to keep, at least 1.
            last: the last of these, as it was when there were no others.
            mark: what the last one still has in common with that, by which it is recognized.
            header_size: the size of the header.

        Raises:
            LostRowsError: the file does not have these rows.
            FileNotFoundError: there is no file.
        """
        with self.path.open("rb") as file:
            file.seek(header_size)
            start = header_size + sum(map(len, itertools.islice(file, n_rows - 1)))
            if mark not in file.readline():
                raise LostRowsError(f"{self.path} does not have the {n_rows} rows from before")
        with self.path.open("r+b", buffering=0) as file:
            _write_at(file, start, last)
            file.truncate()
        self.n_rows, self._last, self._is_torn = n_rows, last, False
        self._header_size, self._end = header_size, start + len(last)

    def sync(self) -> None:
        """Make what was written survive a power failure."""
        with contextlib.suppress(OSError), self.path.open("r+b") as file:
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _opened(self) -> Iterator[FileIO]:
        """Open the file, and check that it is as it was left."""
        with self.path.open("r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < self._end:
                raise LostRowsError(
                    f"{self.path} has {size} bytes, but {self._end} were written to it"
                )
            if self._is_torn:
                self._restore(file)
            elif size > self._end:
                raise OSError(
                    f"something else writes to {self.path}, which has {size} bytes in place of "
                    f"{self._end}. Give each run a directory of its own"
                )
            yield file

    def _restore(self, file: FileIO) -> None:
        """Restore the last row and the end of the file, after a failure."""
        _write_at(file, self._end - len(self._last), self._last)
        file.truncate(self._end)
        self._is_torn = False


def _write_at(file: FileIO, start: int, data: bytes) -> None:
    file.seek(start)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
