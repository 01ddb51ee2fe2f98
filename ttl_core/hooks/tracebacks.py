"""Tracebacks of failed runs, without the frames of ttl and pluggy."""

from __future__ import annotations

import contextlib
import dis
import inspect
import os
from collections.abc import Iterator
from types import FrameType, TracebackType

_HIDDEN = ("ttl_core", "pluggy")


def shorten_traceback(exception: BaseException) -> None:
    """Leave the frames of the user and of components in the tracebacks of an exception.

    Wrappers that it only passed through are left out too. The same is done for the exceptions that
    led to it. `TTL_FULL_TRACEBACK=1` keeps all frames.

    Args:
        exception: what a run, or the creation of a loop, is failing with.
    """
    if os.environ.get("TTL_FULL_TRACEBACK") == "1":
        return
    for one in _chain(exception):
        with contextlib.suppress(Exception):  # an exception may not let its traceback be set
            one.__traceback__ = _shortened(one.__traceback__)


def _shortened(traceback: TracebackType | None) -> TracebackType | None:
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    kept = [entry for entry in entries if not _is_hidden(entry.tb_frame) and not is_passed(entry)]
    # an error of ttl's own has no other frames below the run: the place that raised it is kept
    for entry in reversed(kept or entries[-1:]):
        traceback = TracebackType(traceback, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return traceback


def is_passed(entry: TracebackType | None) -> bool:
    """Return whether an entry is of a generator that was waiting at its own yield.

    An exception only passes through such a one, as through a wrapper around what raised it.

    Args:
        entry: the entry of a traceback, or None.
    """
    if entry is None or not entry.tb_frame.f_code.co_flags & inspect.CO_GENERATOR:
        return False
    if dis.opname[entry.tb_frame.f_code.co_code[entry.tb_lasti]] not in _SUSPENDED:
        return False
    further = entry.tb_next  # of what it delegates to, if it does
    is_delegate = further and further.tb_frame.f_code.co_flags & inspect.CO_GENERATOR
    return is_passed(further) if is_delegate else True


_SUSPENDED = {"YIELD_VALUE", "YIELD_FROM", "SEND", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT"}
"""The operations at which a generator is while it waits, as different versions of Python have.

The jump is that of Python 3.11 where an exception is thrown into one that delegates.
"""


def _is_hidden(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _HIDDEN


def _chain(exception: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exception]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
