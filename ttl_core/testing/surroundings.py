"""What a run shares with the rest of its process, and what it has left there."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Mapping
from typing import NamedTuple

from ttl_core.testing.outcome import Facts, differing, shortened
from ttl_core.testing.torch_settings import named, torch_settings

_GRACE = 2.0  # seconds that threads and processes have to end

_SIGNALS = {
    f"the handler of {number.name}": number
    for number in signal.valid_signals()
    if isinstance(number, signal.Signals)
}

EXCHANGED = (
    *((sys, "stdout"), (sys, "stderr"), (sys, "excepthook")),
    *((threading, "excepthook"), (warnings, "showwarning")),
)
"""What components may exchange for something of their own: modules and the names in them."""


class Surroundings(NamedTuple):
    """What a run shares with the rest of its process.

    Attributes:
        threads: the threads and child processes, by a key of each.
        files: the open files, by their descriptor.
        process: handlers, filters and other settings of the process.
        torch: settings of torch.
    """

    threads: Facts
    files: Facts
    process: Facts
    torch: Facts


def surroundings() -> Surroundings:
    """Return what there is now."""
    return Surroundings(_threads(), _open_files(), _process_settings(), torch_settings())


def left_behind(before: Surroundings) -> dict[str, list[str]]:
    """Return in words what is not as it was, by the attribute of Surroundings that has it.

    Args:
        before: what there was.
    """
    deadline = time.monotonic() + _GRACE
    while _threads().keys() - before.threads.keys() and time.monotonic() < deadline:
        time.sleep(0.01)
    if _open_files().items() - before.files.items():
        gc.collect()  # what nothing refers to any more is closed
    now = surroundings()
    return {
        "threads": [f"{t} still runs" for k, t in now.threads.items() if k not in before.threads],
        "files": [
            f"{name} is still open"
            for number, name in now.files.items()
            if before.files.get(number) != name
        ],
        "process": changes(before.process, now.process),
        "torch": changes(before.torch, now.torch),
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return in words what has changed."""
    lines = []
    for name in differing(before, now):
        was, is_now = shortened(before.get(name), now.get(name))
        lines.append(f"{name} was {was} and is {is_now}")
    return lines


def _threads() -> Facts:
    threads = {f"thread {id(one)}": f"the thread {one.name!r}" for one in threading.enumerate()}
    children = multiprocessing.active_children()
    return threads | {f"process {one.pid}": f"the process {one.name!r}" for one in children}


def _open_files() -> Facts:
    found = {}
    with contextlib.suppress(OSError):  # where the system does not tell, as on Windows
        for number in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed
                os.fstat(int(number))
                found[number] = _target_of(number)
    return found


def _target_of(number: str) -> str:
    with contextlib.suppress(OSError):
        return f"the file {os.readlink(f'/proc/self/fd/{number}')}"
    return f"the file descriptor {number}"


def _process_settings() -> Facts:
    root = logging.getLogger()
    handlers = {name: named(signal.getsignal(number)) for name, number in _SIGNALS.items()}
    environment = {f"the environment variable {k}": repr(v) for k, v in os.environ.items()}
    return {
        **handlers,
        **environment,
        "the number of atexit functions": str(getattr(atexit, "_ncallbacks", int)()),
        "the working directory": repr(os.getcwd()),
        "warnings.filters": repr(warnings.filters),
        "the handlers of the root logger": repr([named(one) for one in root.handlers]),
        "the level of the root logger": str(root.level),
        "logging.disable()": str(root.manager.disable),
        "sys.path": repr(sys.path),
        **{f"{home.__name__}.{name}": named(getattr(home, name)) for home, name in EXCHANGED},
        "the trace function": named(sys.gettrace()),
        "the profile function": named(sys.getprofile()),
        "the recursion limit": str(sys.getrecursionlimit()),
        "the timer of SIGALRM": str(getattr(signal, "getitimer", lambda _: (0.0,))(0)[0] > 0),
        "faulthandler": str(faulthandler.is_enabled()),
        "tracemalloc": str(tracemalloc.is_tracing()),
        "the garbage collector": str((gc.isenabled(), gc.get_threshold())),
        "the umask": f"{umask():03o}",
        **_numpy_settings(),
    }


def umask() -> int:
    """Return the mask of the modes of new files, which can only be read by setting it."""
    found = os.umask(0o077)  # files that other threads create meanwhile are private
    os.umask(found)
    return found


def _numpy_settings() -> Facts:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {}
    errors, options = numpy.geterr(), numpy.get_printoptions()
    return {
        **{f"the handling {name!r} of errors of NumPy": text for name, text in errors.items()},
        **{f"the option {name!r} of printed arrays": repr(v) for name, v in options.items()},
    }
