"""Being told to end: signals that wait for a safe point."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
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
        self._pid = os.getpid()
        self._init_functions: list[tuple[DataLoader[Any], Any]] = []

    def begin(self) -> None:
        """Handle the signals from now on, if this is the main thread: others are not told."""
        self.received = None
        if threading.current_thread() is threading.main_thread() and not self._earlier:
            self._earlier = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def end(self) -> None:
        """Give signals and workers back as they were."""
        for number, earlier in self._earlier.items():
            # None is a handler that was not set from Python, and cannot be set from it
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
        self._earlier = {}
        for loader, init_function in self._init_functions:
            loader.worker_init_fn = init_function
        self._init_functions = []

    def shield_workers(self, data: object) -> None:
        """Keep the workers that a loader is going to start from dying of signals to all.

        Args:
            data: what may be a loader.
        """
        if self._earlier and isinstance(data, DataLoader) and data.num_workers:
            own = data.worker_init_fn
            if not isinstance(own, _Shield):
                self._init_functions.append((data, own))
                data.worker_init_fn = _Shield(own)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            earlier = self._earlier
            self.end()
            if earlier:
                signal.raise_signal(number)
            return
        self.received = signal.Signals(number)
        self._on_signal()
        if os.getpid() == self._pid:
            # not by logging: this may have come in the middle of that
            text = f"\n{self.received.name}: ending at the next safe point. Once more: at once\n"
            os.write(2, text.encode())
        handler = self._earlier.get(self.received)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)


class _Shield:
    """Begin a worker by blocking signals: its parent decides when it ends.

    Args:
        init_function: what the loader begins its workers with.
    """

    def __init__(self, init_function: Callable[[int], None] | None) -> None:
        self.init_function = init_function

    def __call__(self, worker_id: int) -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if self.init_function is not None:
            self.init_function(worker_id)
