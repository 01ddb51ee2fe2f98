"""The component `csv`."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from ttl_loggers.row_file import LostRowsError, RowFile
from ttl_loggers.row_logger import RowLogger
from ttl_loggers.rows import KEYS, Row


class Csv(RowLogger):
    """A file metrics.csv with a row for each step and level, and a column for each name.

    The first columns are "level" ("batch" or "epoch"), "epoch", "step" (`loop.global_step`) and
    "time" (in seconds since 1970). A name that is logged for the first time becomes another
    column, which is empty in earlier rows. Values that are not finite are nan, inf and -inf.

    Args:
        directory: the directory of the file; by default the folder of the run.
        level: "epoch" to write the values of whole epochs only, "batch" for those of batches only;
            both by default.
        every: write the values of batches at each so many steps.

    Attributes:
        path: the path of the file; None before the first run.

    Raises:
        ArgumentError: an argument has an unusable value, or the directory cannot be written to.

    Example:
        >>> import tempfile
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> logger = Csv(tempfile.mkdtemp())
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), logger],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> logger.path.read_text().splitlines()[0]
        'level,epoch,step,time,train/loss'
    """

    component = "csv"
    _columns: Sequence[str] = KEYS

    def begin_file(self, file: RowFile) -> Path | None:
        """Create the file, with a header."""
        self._columns = KEYS
        return file.create(_encode([KEYS]))

    def prepare_rows(self, file: RowFile, rows: Sequence[Row]) -> None:
        """Add columns for names that are new."""
        known = dict.fromkeys(self._columns)
        for names in dict.fromkeys(map(tuple, rows)):
            if not known.keys() >= set(names):
                known |= dict.fromkeys(names)
        columns = list(known)
        new = columns[len(self._columns) :]
        if new:
            file.replace_header(_encode([columns]), b"," * len(new))
            self._columns = columns

    def read_header(self, file: RowFile) -> int:
        """Read the columns, and return the size of the header."""
        try:
            with file.path.open(encoding="utf-8", newline="") as stream:
                columns = next(csv.reader(stream))
        except (StopIteration, csv.Error, UnicodeDecodeError):
            raise LostRowsError(f"{file.path} has no header") from None
        self._columns = columns
        return len(_encode([columns]))

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return rows as they are in the file."""
        columns = self._columns
        with contextlib.suppress(TypeError):  # of a large integer
            # all at once, as each call of orjson allocates memory
            lines = orjson.dumps([list(map(row.get, columns)) for row in rows])
            # orjson has null for what is not finite, too
            if lines.count(b"null") == len(columns) * len(rows) - sum(map(len, rows)):
                # the only texts are levels
                lines = lines[2:-2].replace(b"],[", b"\n").replace(b'"', b"") + b"\n"
                return lines.replace(b"null", b"")
        return b"".join(map(self._encode_row, rows))

    def _encode_row(self, row: Row) -> bytes:
        level, *numbers = map(row.get, self._columns)
        with contextlib.suppress(TypeError):
            cells = orjson.dumps(numbers)[1:-1]
            if cells.count(b"null") == len(self._columns) - len(row):
                return b"%b,%b\n" % (str(level).encode(), cells.replace(b"null", b""))
        # csv is several times slower
        return _encode([[level, *("" if number is None else number for number in numbers)]])


def _encode(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")  # for names that are no valid text
