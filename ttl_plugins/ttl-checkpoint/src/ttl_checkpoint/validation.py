"""Ending a long validation within its current batch, from the safe point before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_LONG = 2.0  # seconds; a shorter validation is waited for


class HeldState:
    """A copy of the state at the safe point before a validation, unless that is short.

    Attributes:
        state: the copy; None where there is none.
        is_held: whether the state of that safe point is here or on the disk.
    """

    state: dict[str, Any] | None
    is_held: bool
    _begun: float | None

    def __init__(self) -> None:
        self._seconds: float | None = None  # how long the last validation took
        self._copy: dict[str, Any] | None = None  # whose memory is reused
        self.drop()

    def begin(self, loop: TrainTestLoop, *, is_saved: bool) -> None:
        """Hold the state at the safe point before a validation.

        Args:
            loop: the loop, at that safe point.
            is_saved: whether that state was just saved, so that no copy is needed.
        """
        self._begun = time.monotonic()
        if self._seconds is not None and self._seconds < _LONG:
            return
        self.is_held = True
        if not is_saved:
            self.state = self._copy = loop.state_dict(out=self._copy)

    def end(self) -> None:
        """Drop what was held for a validation that has ended, and remember how long it took."""
        if self._begun is not None:
            self._seconds = time.monotonic() - self._begun
        self.drop()

    def drop(self) -> None:
        """Drop what was held."""
        self.state = None
        self.is_held = False
        self._begun = None

    def release(self) -> None:
        """Drop what was held, and its memory."""
        self.drop()
        self._copy = self._seconds = None


def interruptible(data: Iterable[Any], check: Callable[[], object]) -> Iterable[Any]:
    """Return data that call a function before each batch, which may end the epoch by an exception.

    Args:
        data: the data.
        check: the function.
    """
    return (_SizedData if hasattr(type(data), "__len__") else _Data)(data, check)


class _Data:
    def __init__(self, data: Any, check: Callable[[], object]) -> None:
        self._data = data
        self._check = check

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._data)
        while True:
            self._check()
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._data, name)


class _SizedData(_Data):
    def __len__(self) -> int:
        return len(self._data)
