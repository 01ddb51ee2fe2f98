"""The component `jsonl`."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence

import orjson

from ttl_loggers.row_logger import RowLogger
from ttl_loggers.rows import Row

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Jsonl(RowLogger):
    """A file metrics.jsonl with a JSON object for each step and level, one a line.

    Each begins with "level" ("batch" or "epoch"), "epoch", "step" (`loop.global_step`) and "time"
    (in seconds since 1970). JSON has no numbers that are not finite: they are the texts "NaN",
    "Infinity" and "-Infinity", which `float()` reads.

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
        >>> logger = Jsonl(tempfile.mkdtemp())
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), logger],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> list(json.loads(logger.path.read_text().splitlines()[0]))
        ['level', 'epoch', 'step', 'time', 'train/loss']
    """

    component = "jsonl"

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return rows as they are in the file."""
        with contextlib.suppress(TypeError):  # of a large integer, or a name that is no valid text
            # all at once, as each call of orjson allocates memory
            lines = orjson.dumps(rows)
            if b"null" not in lines:  # which orjson has for what is not finite
                # in a text a quotation mark has a backslash before it
                return lines[1:-1].replace(b'},{"level":', b'}\n{"level":') + b"\n"
        return b"".join(map(_encode_row, rows))


def _encode_row(row: Row) -> bytes:
    with contextlib.suppress(TypeError):
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        if b"null" not in line:
            return line
    # json is an order of magnitude slower
    text = _encode({name: _finite(value) for name, value in row.items()})
    # an unpaired surrogate in a name becomes the escape that JSON has for it
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _finite(value: float | str) -> float | str:
    if isinstance(value, int | str) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
