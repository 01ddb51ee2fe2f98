"""The streams of log handlers, replaced while something is shown below what they write."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any


class LogStreams:
    """The streams of the log handlers that write to standard output or error.

    `logging` keeps the stream that a handler was made with, so that its lines would not pass what
    replaces `sys.stdout` and `sys.stderr` later.
    """

    def __init__(self) -> None:
        self._before = (sys.stdout, sys.stderr)
        self._replaced: list[tuple[logging.StreamHandler[Any], Any, Any]] = []

    def replace(self) -> None:
        """Let handlers that write to the streams of before write to the present ones."""
        after = (sys.stdout, sys.stderr)
        for handler in _stream_handlers():
            for old, new in zip(self._before, after, strict=True):
                if handler.stream is old is not new:
                    self._replaced.append((handler, old, new))
                    handler.setStream(new)

    def restore(self) -> None:
        """Let them write to the streams of before again, unless something has changed that."""
        for handler, old, new in self._replaced:
            if handler.stream is new:
                handler.setStream(old)
        self._replaced.clear()


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):  # a placeholder of loggers has none
            if isinstance(handler, logging.StreamHandler):
                yield handler
