"""The component `prefetch`."""

from __future__ import annotations

import copy
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import (
    LoopComponent,
    Stateful,
    find_device,
    hookimpl,
    map_nested,
    to_device,
    unwrapped,
)
from ttl_core.arguments import whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_END = object()


class Prefetch(LoopComponent):
    """Batches that a thread gets from the data, and moves to the device, while others are trained.

    It acts in all phases. On a CUDA device batches are copied on a stream of their own, for which
    the training stream waits; on others they are moved without one. The order of the batches and
    the position that a state holds are those of the data. With `train(n_optim_steps=...)` no batch
    is fetched behind the last step, so that the next train() continues with it.

    Args:
        n: how many batches are kept ready.
        device: where to move them; None for the device of the model, False for nowhere.

    Raises:
        ArgumentError: `n` is no whole number from 1, or `device` is no device.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Prefetch(4)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.global_step
        3
    """

    def __init__(self, n: int = 2, *, device: str | torch.device | bool | None = None) -> None:
        self.n = whole_number("n", n, at_least=1)
        self.device: torch.device | None = None
        self.moves = device is not False
        if self.moves and device is not None:
            self.device = find_device("device", device)
        self._open: list[_Ahead] = []  # the data of the epochs under way

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """End the thread with the epoch, however that ends."""
        n_open = len(self._open)
        if loop.is_predicting:  # on_epoch_begin does not fire in it
            self._wrap(loop)
        try:
            return (yield)
        finally:
            for data in self._open[n_open:]:
                data.close()
            del self._open[n_open:]

    @hookimpl(trylast=True)
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Replace `loop.data`, after other components have."""
        self._wrap(loop)

    def _wrap(self, loop: TrainTestLoop) -> None:
        device = self.device
        if device is None and self.moves:
            first = next(loop.model.parameters(), None)
            device = None if first is None else first.device
        steps_left = None
        if loop.is_training and loop.n_epochs is None:
            steps_left = partial(_steps_left, loop)
        data = _Ahead(loop.data, self.n, device, steps_left)
        loop.data = data
        self._open.append(data)


class _Ahead:
    """Data of which a thread gets batches ahead.

    Args:
        data: the data.
        n: how many batches are kept ready.
        device: where to move them; None for nowhere.
        steps_left: returns how many optimization steps are left, where the epoch ends with the
            last one. Each takes one batch or more, so that as many may be fetched.

    Attributes:
        wrapped_data: the data.
    """

    def __init__(
        self,
        data: Any,
        n: int,
        device: torch.device | None,
        steps_left: Callable[[], int] | None = None,
    ) -> None:
        self.wrapped_data = data
        self.n = n
        self.device = device
        self._steps_left = steps_left
        self._stop: threading.Event = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = _state_of(data)
        self._consumed: dict[str, Any] = {}  # the state of that behind the newest batch taken

    def __iter__(self) -> Iterator[Any]:
        return self.iterate_rest(self.wrapped_data, 0)

    def __len__(self) -> int:
        return len(self.wrapped_data)

    def iterate_rest(self, batches: Iterable[Any], n_batches: int) -> Iterator[Any]:
        """Return an iterator over the rest of an epoch.

        Args:
            batches: what is left of the wrapped data.
            n_batches: how many batches of this epoch were consumed.
        """
        # Made here, not in the thread: an iterator may draw from the global random numbers.
        iterator = iter(batches)
        ready: queue.Queue[Any] = queue.Queue(self.n)
        self._stop = threading.Event()
        self._consumed = self._state()
        allowed = None if self._steps_left is None else threading.Semaphore(0)
        arguments = (iterator, ready, self._stop, self.device, self._state, allowed)
        self._thread = threading.Thread(target=_fetch, args=arguments, daemon=True)
        self._thread.start()
        return self._take(ready, allowed)

    def _take(self, ready: queue.Queue[Any], allowed: threading.Semaphore | None) -> Iterator[Any]:
        n_allowed = 0
        try:
            for n_taken in itertools.count():
                if allowed is not None and self._steps_left is not None:
                    # one at least: what is asked for has to come
                    n_more = n_taken + max(self._steps_left(), 1) - n_allowed
                    if n_more > 0:
                        allowed.release(n_more)
                        n_allowed += n_more
                batch, error, event, self._consumed = ready.get()
                if error is not None:
                    raise error
                if batch is _END:
                    return
                if event is not None:
                    event.wait()
                yield batch
        finally:
            self.close()

    def consumed_state(self) -> dict[str, Any]:
        """Return the state of the data behind the batch that was taken last."""
        return self._consumed

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None


def _fetch(
    iterator: Iterator[Any],
    ready: queue.Queue[Any],
    stop: threading.Event,
    device: torch.device | None,
    state_of_data: Callable[[], dict[str, Any]],
    allowed: threading.Semaphore | None,
) -> None:
    """Put batches into a queue until there are no more, or it is to stop."""
    stream: Any = None
    if device is not None and device.type == "cuda":
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    while not stop.is_set():
        if allowed is not None and not allowed.acquire(timeout=0.05):
            continue
        error: BaseException | None = None
        batch, event, state = _END, None, {}
        try:
            batch = next(iterator, _END)
            state = state_of_data()
            if batch is not _END and device is not None:
                batch, event = _moved(batch, device, stream)
        except BaseException as raised:  # it is raised where the batch is taken
            error = raised
        while not stop.is_set():
            try:
                ready.put((batch, error, event, state), timeout=0.05)
                break
            except queue.Full:
                continue
        if batch is _END or error is not None:
            return


def _steps_left(loop: TrainTestLoop) -> int:
    assert loop.n_optim_steps is not None
    return loop.n_optim_steps - loop.optim_step_num


def _state_of(data: Any) -> Callable[[], dict[str, Any]]:
    """Return what returns the state of the innermost data, behind what was taken of these."""
    inner = unwrapped(data)
    if not isinstance(inner, Stateful):
        return dict
    while data is not inner:
        if hasattr(data, "consumed_state"):  # it reads ahead, so the innermost data are further on
            return data.consumed_state  # type: ignore[no-any-return]
        data = data.wrapped_data
    return lambda: copy.deepcopy(inner.state_dict())  # it is kept while the data continue


def _moved(batch: Any, device: torch.device, stream: Any) -> tuple[Any, Any]:
    """Return a batch on a device, and the event after which it is there, where there is one."""
    if stream is None:
        return to_device(batch, device), None
    with torch.cuda.stream(stream):
        moved = to_device(batch, device)
        return moved, _Arrival(stream.record_event(), moved)


class _Arrival:
    """The end of a copy, for which the stream that uses a batch waits."""

    def __init__(self, event: Any, batch: Any) -> None:
        self.event = event
        self.batch = batch

    def wait(self) -> None:
        """Let the current stream wait, and keep the memory of the batch until it is done."""
        stream = torch.cuda.current_stream()
        stream.wait_event(self.event)

        def record(item: Any) -> Any:
            if isinstance(item, torch.Tensor):
                item.record_stream(stream)
            return item

        map_nested(record, self.batch)
