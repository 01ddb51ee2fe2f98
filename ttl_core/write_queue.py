"""Records on their way to a store, which may fail, or take long."""

from __future__ import annotations

import logging
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ttl_core.log_record import LogRecord, convert

_log = logging.getLogger(__name__)

_MAX_UNCONVERTED = 1000  # records: as many tensors are kept alive
_MAX_KEPT = 100_000  # records that wait for a store that fails, or for the next run
_SECONDS = 0.5  # between two writes: a process that is killed loses what was logged since
_MAX_MESSAGE = 300  # characters of the message of an error
_MAX_WAIT = 60.0  # seconds, before a store that has failed is tried again


class WriteQueue:
    """Records that wait until they are written, a few times a second while a run is under way.

    Outside runs they are only kept, as they are where writing fails, and go out with those of the
    next run. Any thread may add records; each is written once, in the order of `add`.

    Args:
        write: writes records, or raises an exception; it is called again with the same ones then.
            It is called by one thread at a time, and may itself add records.
        label: returns the name of what writes, for messages.
        in_background: whether to call it in a thread.

    Attributes:
        records: the records that are not known to be written. To append one needs no lock, as the
            interpreter does it in one operation; to remove some, or to replace the list, does.
        turn: the lock that is held while records are written, and by those that need `records` to
            match what the store has. No method waits for it while a record is added, so `write`
            may log in any way.
        is_failing: whether the last attempt has failed.
    """

    def __init__(
        self,
        write: Callable[[list[LogRecord]], None],
        label: Callable[[], str],
        in_background: bool,
    ) -> None:
        self.records: list[LogRecord] = []
        self.turn = threading.RLock()
        self.is_failing = False
        self._write = write
        self._label = label
        self._in_background = in_background
        self._in_run = False
        self._lock = threading.Lock()  # of what is below, for moments
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None  # the newest attempt in the thread
        self._writer: int | None = None  # the thread in which `write` is called
        self._limit = _MAX_UNCONVERTED  # how many records there are when they are converted
        self._next_write = 0.0  # a value of time.monotonic(): the first record is written at once
        self._wait = 0.0  # seconds after which a store that failed is tried again

    def begin_run(self) -> None:
        """Write records from here on."""
        if self._in_background and self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._label())
        self._in_run = True

    def end_run(self) -> None:
        """Only keep records from here on, and write those that there are, if the store can."""
        with self._lock:
            self._in_run = False
        self._write_all()

    def add(self, record: LogRecord) -> None:
        """Add a record, and write if it is time.

        Args:
            record: the record.
        """
        self.records.append(record)
        if len(self.records) >= self._limit or time.monotonic() >= self._next_write:
            self._write_due()

    def write_if_due(self) -> None:
        """Write if it is time, where no record has been added for a while."""
        if self.records and time.monotonic() >= self._next_write:
            self._write_due()

    def flush(self) -> None:
        """Write all records, if a run is under way, and wait until that has succeeded or failed."""
        if self._in_run:
            self._write_all()

    def settle(self) -> None:
        """Wait for an attempt that is under way."""
        if self._writer == threading.get_ident():  # `write` itself has led here
            return
        if (running := self._running) is not None:
            running.result()
        with self.turn:  # of another thread
            pass

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
            self._thread = self._running = None
        if self.is_failing:
            _log.error(
                "%s: %d records could not be written before the run ended",
                self._label(),
                len(self.records),
            )

    def _write_due(self) -> None:
        now = time.monotonic()
        is_waiting = self.is_failing and now < self._next_write
        self._next_write = max(self._next_write, now + _SECONDS)
        n = self._convert()
        if not self._in_run:
            self._drop_oldest()
        elif is_waiting:
            return
        elif self._in_background:
            self._submit(n)
        elif self.turn.acquire(blocking=False):  # else another thread writes
            try:
                self._attempt(n)
            finally:
                self.turn.release()

    def _write_all(self) -> None:
        self.settle()
        if self.records:
            n = self._convert()
            if self._in_background:
                self._submit(n, is_due=False)
                self.settle()
            else:
                self._attempt(n, is_due=False)

    def _convert(self) -> int:
        """Convert the records that there are, and return how many they are."""
        records = list(self.records)
        convert(records)
        self._limit = len(records) + _MAX_UNCONVERTED
        return len(records)

    def _submit(self, n: int, *, is_due: bool = True) -> None:
        with self._lock:
            is_free = self._running is None or self._running.done()
            if self._thread is not None and (not is_due or (is_free and self._in_run)):
                self._running = self._thread.submit(self._attempt, n, is_due=is_due)

    def _attempt(self, n: int, *, is_due: bool = True) -> None:
        """Write the first records, and say what went wrong.

        Args:
            n: how many.
            is_due: whether it is an attempt of `add`, of which there are none after a run.
        """
        with self.turn:
            if self._writer is not None or (is_due and not self._in_run):
                return
            given = self.records[:n]
            convert(given)
            try:
                self._writer = threading.get_ident()
                self._write(given)
            except Exception as error:
                self._fail(error)
            else:
                del self.records[: len(given)]
                self._limit = _MAX_UNCONVERTED
                self.is_failing, self._wait = False, 0.0
                self._next_write = time.monotonic() + _SECONDS
            finally:
                self._writer = None

    def _fail(self, error: Exception) -> None:
        is_first, self.is_failing = not self.is_failing, True
        self._wait = min(max(2 * self._wait, 1.0), _MAX_WAIT)
        self._next_write = time.monotonic() + self._wait
        if is_first:
            _log.warning(
                "%s: values cannot be written: %s: %s. Training continues, and they are kept until "
                "they can be",
                self._label(),
                type(error).__name__,
                # those of some stores have pages of what was to be written
                textwrap.shorten(str(error), _MAX_MESSAGE, placeholder=" ..."),
            )
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Drop what is too much to keep; no attempt is under way in another thread."""
        with self._lock:
            n_dropped = len(self.records) - _MAX_KEPT
            if n_dropped > 0:
                del self.records[:n_dropped]
        if n_dropped > 0:
            _log.error("%s: the oldest %d records are dropped", self._label(), n_dropped)
