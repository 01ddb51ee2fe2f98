"""Calling a function in a process of its own, so that a crash or a hang is a result."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

CAN_FORK = hasattr(os, "fork")
_SIGKILL = 9


class Outcome(NamedTuple):
    """What became of a call.

    Attributes:
        value: what the function returned.
        failure: how its process ended, if that was before the function returned.
    """

    value: Any = None
    failure: str | None = None


def call_forked(function: Callable[[], Any], seconds: float) -> Outcome:
    """Call a function in a fork of this process, which has imported what this one has.

    The fork, and what it has started, is killed when the function has returned or its time is up.
    Where processes cannot be forked, the function is called here, for as long as it takes.

    Args:
        function: returns what JSON can hold.
        seconds: how long it may take.

    Example:
        >>> call_forked(lambda: 6 * 7, seconds=60)
        Outcome(value=42, failure=None)
        >>> call_forked(lambda: os._exit(3), seconds=60).failure
        'ended the process with status 3'
        >>> call_forked(lambda: time.sleep(60), seconds=0.1).failure
        'did not end within 0.1 seconds'
    """
    if not CAN_FORK:
        return Outcome(function())
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork where there are threads; a hang has its time limit
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _answer(function, writing)
    os.close(writing)
    deadline, status = time.monotonic() + seconds, None
    try:
        said = _read_line(reading, deadline)
        if not said.endswith(b"\n"):
            status = _status(child, deadline)
    finally:  # also after ctrl-C, which does not reach the fork
        os.close(reading)
        with contextlib.suppress(OSError):  # where there is nothing left to kill
            os.killpg(child, _SIGKILL)
        if status is None:
            os.waitpid(child, 0)
    if said.endswith(b"\n"):
        return Outcome(json.loads(said))
    if status is None:
        return Outcome(failure=f"did not end within {seconds:g} seconds")
    if status < 0:
        return Outcome(failure=f"killed the process with signal {-status}")
    return Outcome(failure=f"ended the process with status {status}")


def _answer(function: Callable[[], Any], writing: int) -> NoReturn:
    """Write what a function returns as a line of JSON, and end this process."""
    os.setpgid(0, 0)  # so that what it starts can be killed with it
    status = 1
    try:
        answer = json.dumps(function())
        with os.fdopen(writing, "w") as stream:
            stream.write(f"{answer}\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # without what is registered to run at exit


def _read_line(reading: int, deadline: float) -> bytes:
    """Return a line, or a part of it where there is no more of it in time."""
    line = b""
    # not until the end of the file: what the process has started may keep the pipe open
    while not line.endswith(b"\n"):
        if not select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        part = os.read(reading, 1 << 16)
        if not part:
            break
        line += part
    return line


def _status(child: int, deadline: float) -> int | None:
    """Return the exit status of a process, negative for a signal; None if it does not end."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)
