"""Being told to end: signals that wait for a safe point."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preemption:
    """Note the first SIGTERM or SIGINT, and let the second one act at once.

    Whoever handled a signal before is called too, but for Python's own KeyboardInterrupt.

    Args:
        on_signal: what to call when the first one comes.

    Attributes:
        received: which one came; None if none did.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self.received: signal.Signals | None = None
        self._on_signal = on_signal
        self._earlier: dict[signal.Signals, Any] = {}
        self._is_handling = False
        self._is_over: Any = RawValue(ctypes.c_bool, False)  # shared with workers
        self._pid = os.getpid()
        self._init_functions: list[tuple[DataLoader[Any], Any]] = []

    def begin(self) -> None:
        """Handle the signals from now on, if this is the main thread: others are not told."""
        self.received = None
        self._is_over.value = False
        if threading.current_thread() is threading.main_thread() and not self._is_handling:
            self._is_handling = True
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as for background jobs
                    self._earlier[number] = signal.signal(number, self._handle)

    def end(self) -> None:
        """Give signals and workers back as they were."""
        self._is_handling = False
        self._is_over.value = True
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # somebody else's is left alone; our turn comes when it is given back
            if number in self._earlier and _owner(handler) is self:
                signal.signal(number, _still_handling(handler, number))
        for loader, init_function in self._init_functions:
            loader.worker_init_fn = init_function
        self._init_functions = []

    def shield_workers(self, data: object) -> None:
        """Keep the workers that a loader is going to start from dying of signals to all.

        Args:
            data: what may be a loader.
        """
        if self._is_handling and isinstance(data, DataLoader) and data.num_workers:
            own = data.worker_init_fn
            if not isinstance(own, _Shield):
                self._init_functions.append((data, own))
                data.worker_init_fn = _Shield(own, self._is_over)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        earlier = self._earlier[received]
        is_ours = os.getpid() == self._pid  # else a process that somebody has forked
        if self.received is not None or not is_ours or not self._is_handling:
            if is_ours:
                self.end()
            signal.signal(number, _still_handling(earlier, received))
            signal.raise_signal(number)
            return
        self.received = received
        self._on_signal()
        text = f"\n{received.name}: ending at the next safe point. Once more: at once\n"
        with contextlib.suppress(OSError):  # nobody may be reading
            os.write(2, text.encode())  # not by logging: this may have come in the middle of that
        if callable(earlier) and earlier is not signal.default_int_handler:
            earlier(number, frame)


def _owner(handler: Any) -> Preemption | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, Preemption) else None


def _still_handling(handler: Any, number: signal.Signals) -> Any:
    """Return a handler, or the one before it where it belongs to a run that has ended."""
    owner = _owner(handler)
    while owner is not None and not owner._is_handling:
        handler = owner._earlier[number]
        owner = _owner(handler)
    # None is a handler that was not set from Python, and cannot be set from it
    return signal.SIG_DFL if handler is None else handler


class _Shield:
    """Begin a worker that does not end by signals to all, but when its parent wants it to.

    Args:
        init_function: what the loader begins its workers with.
        is_over: whether the run is over, so that a SIGTERM is the parent's.
    """

    def __init__(self, init_function: Callable[[int], None] | None, is_over: Any) -> None:
        self.init_function = init_function
        self.is_over = is_over

    def __call__(self, worker_id: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # in place of torch's handler, by which a worker dies of what does not come from its parent
        signal.signal(signal.SIGTERM, self._handle)
        if self.init_function is not None:
            self.init_function(worker_id)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_over.value:
            os._exit(0)
