"""The base class of loggers that write rows to a file."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ttl_core import Logger, LogRecord
from ttl_core.arguments import absolute_path, directory_or_run_folder
from ttl_loggers.row_file import LostRowsError, RowFile
from ttl_loggers.rows import Row, add_records

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class RowLogger(Logger):
    """A logger that writes a row for each step and level to a file.

    Args:
        directory: the directory of the file; by default the folder of the run.
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.

    Attributes:
        component: the name of the component, for messages.
        path: the path of the file; None before the first run.

    Raises:
        ArgumentError: an argument has an unusable value.
    """

    component: ClassVar[str]

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        level: Literal["batch", "epoch"] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(level=level, every=every)
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.path: Path | None = None
        self._file: RowFile | None = None
        self._row: Row | None = None  # the last row
        self._moved_to: Path | None = None  # the file that this loop has found
        self._sought: dict[str, Any] | None = None  # the position to go to before writing

    # -- what a subclass implements ---------------------------------------------------------

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return rows as they are in the file, one a line.

        Args:
            rows: the rows.
        """

    def begin_file(self, file: RowFile) -> Path | None:
        """Create the file.

        Args:
            file: the file.

        Returns:
            The path to which a file that was there is moved; None if there was none.
        """
        return file.create()

    def prepare_rows(self, file: RowFile, rows: Sequence[Row]) -> None:
        """Prepare the file for rows, before they are encoded.

        Args:
            file: the file.
            rows: the rows.
        """

    def read_header(self, file: RowFile) -> int:
        """Read the header of a file that another process has left, and return its size.

        Args:
            file: the file.
        """
        return 0

    # -- a run ------------------------------------------------------------------------------

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Check before work starts that the directory can be written to.

        Raises:
            ArgumentError: it cannot be, or there is none.
            RunError: another run writes there.
        """
        self._find_path(loop)

    def on_test_begin(self, loop: TrainTestLoop) -> None:
        """Check before work starts that the directory can be written to.

        Raises:
            ArgumentError: it cannot be, or there is none.
            RunError: another run writes there.
        """
        self._find_path(loop)

    def open(self, loop: TrainTestLoop) -> None:
        """Find the directory, where no begin point has."""
        self._find_path(loop)

    def _find_path(self, loop: TrainTestLoop) -> None:
        """Find the directory, which is that of the first run, and keep other runs out of it."""
        directory = self.path and self.path.parent
        directory = directory or directory_or_run_folder(self.directory, loop, self.component)
        self.claim_directory(self.component, directory)
        self.path = directory / f"metrics.{self.component}"

    # -- writing ----------------------------------------------------------------------------

    def write(self, records: Sequence[LogRecord]) -> None:
        """Write the values of records to the file.

        Args:
            records: the records.

        Raises:
            OSError: they cannot be written.
        """
        assert self.path is not None
        try:
            if self._sought is not None:
                self._go_to(self._sought)
            if self._file is None:
                self._begin()
            self._write(records)
        except (LostRowsError, FileNotFoundError) as error:
            _log.warning("%s: %s. A new file is begun", self.component, error)
            self._begin()
            self._write(records)

    def _begin(self) -> None:
        """Begin a new file."""
        assert self.path is not None
        file = RowFile(self.path)
        self._moved_to = self.begin_file(file)
        self._file, self._row, self._sought = file, None, None
        if self._moved_to is not None:
            _log.info("%s: %s is moved to %s", self.component, self.path, self._moved_to)

    def _write(self, records: Sequence[LogRecord]) -> None:
        assert self._file is not None
        rows = [] if self._row is None else [dict(self._row)]
        n_fields = 0 if self._row is None else len(self._row)
        add_records(rows, records, self.skip)
        continues = bool(n_fields) and len(rows[0]) > n_fields
        new = rows if continues or not n_fields else rows[1:]
        if new:
            self.prepare_rows(self._file, new)
            last = self.encode(new[-1:])
            self._file.write(self.encode(new), len(new), last, replaces_last=continues)
            self._row = new[-1]

    # -- state ------------------------------------------------------------------------------

    def position(self) -> dict[str, Any]:
        """Return the number of rows, and the last of them, as it may grow."""
        if self._sought is not None:
            return self._sought
        if self._file is None:
            return {"n_rows": 0, "row": None}
        self._moved_to = None  # states are of this file from here on, not of the one before it
        self._file.sync()  # so that no power failure takes what a checkpoint counts on
        return {"n_rows": self._file.n_rows, "row": self._row and dict(self._row)}

    def seek(self, position: dict[str, Any]) -> None:
        """Remove what was written after a position, before anything else is written.

        Args:
            position: what `position()` returned.
        """
        self._sought = position

    def _go_to(self, position: dict[str, Any]) -> None:
        assert self.path is not None
        if self._moved_to is not None:  # by what was logged before the state was restored
            self._moved_to.replace(self.path)
            self._moved_to = None
        elif self._file is not None and position["row"] is None:  # begun since, in this run
            self.path.unlink(missing_ok=True)
        self._file = self._row = None
        n_rows, row = position["n_rows"], position["row"]
        if row is not None:
            file = RowFile(self.path)
            header_size = self.read_header(file)
            # the time of a row tells whether it is that row, and not one of another run
            mark = repr(row["time"]).encode()
            file.cut(n_rows, self.encode([row]), mark, header_size)
            self._file, self._row = file, dict(row)
        self._sought = None
