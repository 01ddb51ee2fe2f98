"""Whether a component keeps more with each batch, without end."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ttl_core.components.component import LoopComponent
from ttl_core.hookspecs import hookimpl
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.observer import Observer

_MAX_DEPTH = 4


class Growth(Observer):
    """A record of how many values another component keeps at the end of each training batch.

    Args:
        watched: the component.
    """

    def __init__(self, watched: LoopComponent) -> None:
        self._watched = watched
        self._epochs: list[list[dict[str, int]]] = []

    @hookimpl(tryfirst=True)
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Begin an epoch."""
        if loop.is_training:
            self._epochs.append([])

    @hookimpl(trylast=True)
    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Count the values."""
        if loop.is_training:
            self._epochs[-1].append(values_in(self._watched))

    def growing(self) -> Iterator[tuple[str, list[int]]]:
        """Yield attributes that keep more values after each batch, with how many.

        They grow from the last batch of an epoch to the first of the next one too: what is cleared
        between epochs does not count.
        """
        counts = [count for epoch in self._epochs for count in epoch]
        for name in counts[-1] if counts and len(self._epochs) > 1 else ():
            numbers = [count.get(name, 0) for count in counts]
            if all(a < b for a, b in itertools.pairwise(numbers)):
                yield name, numbers


def values_in(component: LoopComponent) -> dict[str, int]:
    """Return how many tensors, numbers and texts attributes of a component and its class keep."""
    own = type(component).__module__.partition(".")[0]
    values = {**_of_classes(component), **vars(component)}
    return {name: _count(value, own, 0) for name, value in values.items()}


def _of_classes(component: LoopComponent) -> dict[str, Any]:
    """Return the collections that the classes of a component hold."""
    return {
        name: value
        for cls in type(component).__mro__
        for name, value in vars(cls).items()
        if isinstance(value, list | dict | set | deque)
    }


def _count(value: Any, own: str, depth: int) -> int:
    """Count values, each as often as it is there, as tiny data give the same ones each epoch."""
    if isinstance(value, torch.Tensor | int | float | str):
        return 1
    if depth > _MAX_DEPTH:
        return 0
    if isinstance(value, Mapping):
        parts: Any = [*value.values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        # a deque of a fixed length is full some time
        parts = () if getattr(value, "maxlen", None) is not None else [*value]
    elif type(value).__module__.partition(".")[0] == own and not isinstance(value, type):
        parts = [*getattr(value, "__dict__", {}).values()]
    else:
        return 0
    return sum(_count(part, own, depth + 1) for part in parts)
