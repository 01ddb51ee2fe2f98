"""SIGTERM and SIGINT during training: they wait for a safe point, and do not kill workers."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from ttl_core import DataWrapper

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_REPEATED = 3.0  # seconds in which a second signal is the first one, passed on by torchrun


def exit_of(received: signal.Signals) -> BaseException:
    """Return the exception that ends the process as one that a signal has ended.

    It is a KeyboardInterrupt for SIGINT, else SystemExit. Where it ends the process, no traceback
    is printed: what the run has to say was logged.
    """
    if received != signal.SIGINT:
        return SystemExit(128 + received)
    interrupt = KeyboardInterrupt()
    previous = sys.excepthook

    def hide(kind: Any, exception: BaseException, traceback: Any) -> None:
        if exception is not interrupt:
            previous(kind, exception, traceback)

    sys.excepthook = hide
    return interrupt


class Preemption:
    """Handlers that record the first SIGTERM or SIGINT, and let a second one act at once.

    A handler that was set before is called too, but for Python's own KeyboardInterrupt.

    Args:
        on_signal: is called when the first signal comes.

    Attributes:
        received: the first signal; None if there was none.
        is_in_group: whether a launcher may pass a signal on that this process has got already.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self.received: signal.Signals | None = None
        self._on_signal = on_signal
        self._previous: dict[signal.Signals, Any] = {}  # handlers
        self.is_in_group = False
        self._at = 0.0  # when it came
        self._is_handling = False
        self._is_run_over: Any = RawValue(ctypes.c_bool, False)  # shared with workers
        self._pid = os.getpid()
        self._init_functions: list[tuple[DataLoader[Any], Any]] = []  # as they were

    @property
    def is_handling(self) -> bool:
        """Whether the signals are handled."""
        return self._is_handling

    def start(self) -> None:
        """Handle the signals from now on, if this is the main thread: others receive none."""
        self.received = None
        self._is_run_over.value = False
        if threading.current_thread() is threading.main_thread() and not self._is_handling:
            self._is_handling = True
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as for background jobs
                    self._previous[number] = signal.signal(number, self._handle)

    def stop(self) -> None:
        """Restore the handlers and the loaders."""
        self._is_handling = False
        self._is_run_over.value = True
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # a handler that was set later stays; ours is skipped when that one is restored
            if number in self._previous and _owner(handler) is self:
                signal.signal(number, _skip_stopped(handler, number))
        for loader, init_function in self._init_functions:
            loader.worker_init_fn = init_function
        self._init_functions = []

    def protect_workers(self, data: object) -> None:
        """Let the workers that a loader will start survive signals to the process group.

        Args:
            data: the data of an epoch; only a DataLoader, also one that is wrapped, has workers.
        """
        while isinstance(data, DataWrapper):
            data = data.wrapped_data
        if self._is_handling and isinstance(data, DataLoader) and data.num_workers:
            init_function = data.worker_init_fn
            if not isinstance(init_function, _ProtectedInit):
                self._init_functions.append((data, init_function))
                context = data.multiprocessing_context or multiprocessing
                data.worker_init_fn = _ProtectedInit(
                    init_function, self._is_run_over, context.get_start_method()
                )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        previous = self._previous[received]
        is_own_process = os.getpid() == self._pid  # and not one that a component has forked
        is_repeated = self.received is not None and time.monotonic() - self._at < _REPEATED
        if self.is_in_group and is_own_process and is_repeated and self._is_handling:
            return
        if self.received is not None or not is_own_process or not self._is_handling:
            if is_own_process:
                self.stop()
            signal.signal(number, _skip_stopped(previous, received))
            signal.raise_signal(number)
            return
        self.received, self._at = received, time.monotonic()
        self._on_signal()
        text = f"\n{received.name}: ending at the next safe point. A second one acts at once\n"
        with contextlib.suppress(OSError):  # a pipe that is no longer read
            os.write(2, text.encode())  # not by logging, which this may have interrupted
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)


def _owner(handler: Any) -> Preemption | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Preemption) else None


def _skip_stopped(handler: Any, number: signal.Signals) -> Any:
    """Return a handler, or the one before it where it belongs to a run that has ended."""
    owner = _owner(handler)
    while owner is not None and not owner._is_handling:
        handler = owner._previous[number]
        owner = _owner(handler)
    # None is a handler that was not set from Python, and cannot be set from it
    return signal.SIG_DFL if handler is None else handler


class _ProtectedInit:
    """A `worker_init_fn` after which a worker ends when its parent ends it, and by no signal else.

    Args:
        init_function: the loader's own `worker_init_fn`.
        is_run_over: whether the run is over, so that a SIGTERM comes from the parent.
        start_method: how the worker is started: "fork", "spawn" or "forkserver".
    """

    def __init__(
        self,
        init_function: Callable[[int], None] | None,
        is_run_over: Any,
        start_method: str | None,
    ) -> None:
        self.init_function = init_function
        self.is_run_over = is_run_over
        self.start_method = start_method

    def __call__(self, worker_id: int) -> None:
        self._end_if_orphaned()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # in place of torch's handler, which ends a worker whichever process sent the signal
        signal.signal(signal.SIGTERM, self._handle)
        if self.init_function is not None:
            self.init_function(worker_id)
            self._end_if_orphaned()

    def _end_if_orphaned(self) -> None:
        """End the worker if its parent has ended while it was starting.

        The worker's own check compares with the parent that it has when it begins to work, and so
        would never notice.
        """
        parent = multiprocessing.parent_process()
        if parent is None:
            return
        if self.start_method == "forkserver":  # then the server is the parent for the system
            is_orphaned = not parent.is_alive()
        else:  # not is_alive(): a forked process keeps open what tells that its parent has ended
            is_orphaned = os.getppid() != parent.pid
        if is_orphaned:
            os._exit(1)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_run_over.value:
            os._exit(0)
