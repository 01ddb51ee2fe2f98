"""What a component costs in each batch: time, and waiting for the device."""

from __future__ import annotations

import functools
import os
import statistics
import sys
from collections.abc import Callable, Generator, Mapping
from time import perf_counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ttl_core.components.component import LoopComponent
from ttl_core.hookspecs import hookimpl
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.observer import Observer
from ttl_core.testing.probes import WrapperParts, is_named

_WAITING_METHODS = {
    *("item", "tolist", "numpy", "cpu", "nonzero", "equal", "allclose", "is_nonzero"),
    *("__bool__", "__float__", "__int__", "__index__", "__complex__", "__array__"),
    *("__format__", "__repr__", "__contains__"),
}
_WAITING = {
    getattr(home, name)
    for home in (torch, torch.Tensor)
    for name in _WAITING_METHODS
    if hasattr(home, name) and not hasattr(object, name)
} | {torch.Tensor.__format__, torch.Tensor.__repr__}
_WAITING_OPERATORS = {
    *("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::masked_select"),
    *("aten::equal", "aten::is_nonzero", "aten::_unique2", "aten::unique_dim"),
}
_INDEXING = {"aten::index", "aten::index_put_"}
_INTERNAL = (os.path.dirname(torch.__file__), __file__)


class Waits(Observer):
    """A record of what waits for the device in a training batch, also where that is the CPU.

    Attributes:
        found: by the source line, the numbers of the batches in which it waited; the batches are
            numbered from the start of training.
        n_batches: how many training batches there were.
    """

    def __init__(self) -> None:
        self.found: dict[str, set[int]] = {}
        self.n_batches = 0
        self._is_in_batch = False
        self._functions = _Functions(self)
        self._operators = _Operators(self)

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Begin a batch."""
        self._is_in_batch = loop.is_training
        self.n_batches += loop.is_training

    @hookimpl(wrapper=True, tryfirst=True)
    def on_epoch_end(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """End the last batch: what waits from here on does so once an epoch."""
        self._is_in_batch = False
        return (yield)

    def train(self, loop: TrainTestLoop, n_epochs: int) -> None:
        """Train a loop while everything that waits is recorded."""
        with self._functions, self._operators:
            loop.train(n_epochs)

    def note(self, what: str) -> None:
        """Note that something waits now."""
        if not self._is_in_batch:
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_INTERNAL):
            frame = frame.f_back
        code = frame.f_code
        line = f"{what} in {code.co_qualname}, {code.co_filename}:{frame.f_lineno}"
        self.found.setdefault(line, set()).add(self.n_batches)


class _Functions(TorchFunctionMode):
    """A mode that notes which functions of torch wait."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _WAITING:
            self._waits.note(f"{func.__name__}()")
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that notes which operators wait, also those that functions of torch call."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if name in _WAITING_OPERATORS or (name in _INDEXING and _has_mask(args[1])):
            self._waits.note(name)
        return func(*args, **(kwargs or {}))


def _has_mask(indices: Any) -> bool:
    """Return whether one of some indices is a mask, of which the host has to know the number."""
    return any(index is not None and index.dtype is torch.bool for index in indices)


class Stopwatch(Observer):
    """The time that the hooks of another component take in each training batch.

    Args:
        loop: the loop.
        watched: the component.

    Attributes:
        batches: the seconds, by batch.
    """

    def __init__(self, loop: TrainTestLoop, watched: LoopComponent) -> None:
        self.batches: list[float] = []
        self._loop = loop
        self._watched = watched
        self._is_inside = False

    @property
    def median(self) -> float:
        """The median of the batches, in seconds."""
        return statistics.median(self.batches or [0.0])

    @hookimpl(tryfirst=True)
    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Begin a batch."""
        if loop.is_training:
            self.batches.append(0.0)

    def wrap_hookimpl(
        self, function: Callable[..., Any], *, component: str, point: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """Return what adds the time of a hook of the watched component."""
        is_watched = is_named(self._loop, component, self._watched)
        # what is called inside the step of others, as a wrapper's inner part, is not its own time
        if not is_watched or point in ("around_run", "around_epoch", "on_epoch_end"):
            return function

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            if is_wrapper:
                return WrapperParts(function(*arguments), self.measure)
            return self.measure(function, *arguments)

        return call

    def measure(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, and add its time to the batch."""
        if self._is_inside or not self.batches or not self._loop.is_training:
            return function(*arguments)
        self._is_inside = True
        begin = perf_counter()
        try:
            return function(*arguments)
        finally:
            self.batches[-1] += perf_counter() - begin
            self._is_inside = False
