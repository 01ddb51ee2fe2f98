"""The copy of the console's log lines in the folder of a run."""

from __future__ import annotations

import logging
import traceback
import warnings
from pathlib import Path
from typing import Self

LOG_FILE = "log.txt"
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class LogCopy(logging.FileHandler):
    """A handler that appends what reaches the root logger to a file, inside a with block.

    Args:
        folder: the folder of the run.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOG_FILE, encoding="utf-8")
        self.setFormatter(logging.Formatter(_FORMAT))
        self._has_failed = False

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        try:
            self.close()
        except OSError:  # what is buffered does not fit on the disk
            self._warn()

    def write_failure(self, exception: BaseException) -> None:
        """Append the traceback of an exception, which Python prints when the run has ended."""
        text = "".join(traceback.format_exception(exception)).rstrip()
        record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None)
        super().emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and show it on the console where no other handler does.

        Python shows warnings on the console as long as there is no handler at all; this one must
        not change that.
        """
        super().emit(record)
        last_resort = logging.lastResort
        is_shown = last_resort is not None and record.levelno >= last_resort.level
        if last_resort is not None and is_shown and not self._has_others(record.name):
            last_resort.handle(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Warn once that the file cannot be written: that is no reason to fail."""
        self._warn()

    def _warn(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            warnings.warn(
                f"run-folder: {self.baseFilename} cannot be written: log lines are missing there",
                UserWarning,
                stacklevel=3,
            )

    def _has_others(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False
