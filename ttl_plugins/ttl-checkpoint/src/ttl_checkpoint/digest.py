"""The digest of what is written, computed beside the writing."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

_PIECE = 4 << 20  # bytes
_N_PIECES = 4  # that wait for the thread at most


class Digest:
    """A SHA-256 of bytes, computed in a thread from the first large piece on.

    It takes longer than writing to a fast disk, so that the two together would take twice as long
    one after the other. The thread gets copies: what is written may change right after it.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def update(self, data: memoryview) -> None:
        """Add bytes to what is digested."""
        if self._thread is None:
            if len(data) < _PIECE:
                self._sha256.update(data)
                return
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-digest")
        for start in range(0, len(data), _PIECE):
            if len(self._waiting) == _N_PIECES:
                self._waiting.popleft().result()
            piece = bytes(data[start : start + _PIECE])
            self._waiting.append(self._thread.submit(self._sha256.update, piece))

    def hexdigest(self) -> str:
        """Return the digest of all, in hexadecimal digits."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Wait for the thread, and end it."""
        if self._thread is not None:
            self._thread.shutdown()
