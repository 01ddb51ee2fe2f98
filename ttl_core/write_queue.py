"""Records on their way to a store, which may fail, or take long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ttl_core.log_record import LogRecord, convert

_log = logging.getLogger(__name__)

_MAX_UNCONVERTED = 1000  # records: as many tensors are kept alive
_MAX_KEPT = 100_000  # records that wait for a store that fails
_SECONDS = 0.5  # between two writes: a process that is killed loses what was logged since
_MAX_WAIT = 60.0  # seconds, before a store that has failed is tried again


class WriteQueue:
    """Records that wait until they are written, a few times a second.

    Where writing fails they are kept, and it is tried again later.

    Args:
        write: writes records, or raises an exception; it is called again with the same ones then.
        label: returns the name of what writes, for messages.
        in_background: whether to call it in a thread.

    Attributes:
        records: the records that are not known to be written.
        is_failing: whether the last attempt has failed.
    """

    def __init__(
        self,
        write: Callable[[list[LogRecord]], None],
        label: Callable[[], str],
        in_background: bool,
    ) -> None:
        self.records: list[LogRecord] = []
        self.is_failing = False
        self._write = write
        self._label = label
        self._in_background = in_background
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[Exception | None] | None = None  # an attempt in the thread
        self._n_given = 0  # how many records the attempt has
        self._next_write = 0.0  # a value of time.monotonic(): the first record is written at once
        self._wait = 0.0  # seconds after which a store that failed is tried again

    def add(self, record: LogRecord) -> None:
        """Add a record, and write if it is time.

        Args:
            record: the record.
        """
        self.records.append(record)
        is_full = len(self.records) % _MAX_UNCONVERTED == 0
        if is_full or time.monotonic() >= self._next_write:
            self._write_due()

    def write_if_due(self) -> None:
        """Write if it is time, where no record has been added for a while."""
        if self.records and time.monotonic() >= self._next_write:
            self._write_due()

    def flush(self) -> None:
        """Write all records, and wait until that has succeeded or failed."""
        self.settle()
        if self.records:
            self._begin()
            self.settle()

    def settle(self) -> None:
        """Wait for an attempt that is under way."""
        if self._running is not None:
            self._end(self._running.result())

    def call(self, function: Callable[[], None]) -> None:
        """Call a function where records are written, and wait for it.

        Args:
            function: the function.
        """
        if self._thread is None:
            function()
        else:
            self._thread.submit(function).result()

    def close(self) -> None:
        """End the thread, and say which records could not be written; they are kept."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        if self.records:
            _log.error(
                "%s: %d records could not be written before the run ended",
                self._label(),
                len(self.records),
            )

    def _write_due(self) -> None:
        if self._running is not None and self._running.done():
            self.settle()
        is_waiting = self.is_failing and time.monotonic() < self._next_write
        if self._running is None and not is_waiting:
            self._begin()
        else:
            convert(self.records)
            self._next_write = max(self._next_write, time.monotonic() + _SECONDS)

    def _begin(self) -> None:
        convert(self.records)
        given = list(self.records)
        self._n_given = len(given)
        if not self._in_background:
            self._end(self._attempt(given))
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._label())
        self._running = self._thread.submit(self._attempt, given)

    def _attempt(self, records: list[LogRecord]) -> Exception | None:
        """Write, and return what went wrong."""
        try:
            self._write(records)
        except Exception as error:
            return error
        return None

    def _end(self, error: Exception | None) -> None:
        self._running = None
        if error is None:
            del self.records[: self._n_given]
            self.is_failing, self._wait = False, 0.0
            self._next_write = time.monotonic() + _SECONDS
            return
        if not self.is_failing:
            _log.warning(
                "%s: values cannot be written: %s: %s. Training continues, and they are kept until "
                "they can be",
                self._label(),
                type(error).__name__,
                error,
            )
        self.is_failing = True
        self._wait = min(max(2 * self._wait, 1.0), _MAX_WAIT)
        self._next_write = time.monotonic() + self._wait
        n_dropped = len(self.records) - _MAX_KEPT
        if n_dropped > 0:
            del self.records[:n_dropped]
            _log.error("%s: the oldest %d records are dropped", self._label(), n_dropped)
