"""The component `overfit-batch`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, RunError

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class OverfitBatch(LoopComponent):
    """The first training batch in place of every batch, to see whether a model can learn it.

    It replaces every batch in training and in validation, in epochs of the same length as without
    it. Testing and prediction are left alone. The batch stays the same as long as this component
    exists.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> class Show(LoopComponent):
        ...     def on_batch_begin(self, loop):
        ...         print(loop.epoch_desc, loop.batch)
        >>> loop = TrainTestLoop(torch.nn.Identity(), [OverfitBatch(), Show()], [1, 2], [3])
        >>> loop.train(n_epochs=1)
        train 1
        train 1
        valid 1
    """

    def __init__(self) -> None:
        self._batch: Any = _UNSET

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Replace `loop.data`.

        Raises:
            RunError: there is no first batch.
        """
        if not (loop.is_training or loop.is_validating):
            return
        if self._batch is _UNSET:
            is_validated_first = not loop.is_training and loop.train_data is not None
            data: Any = loop.train_data if is_validated_first else loop.data
            self._batch = next(iter(data), _UNSET)
        if self._batch is _UNSET:
            raise RunError("overfit-batch found no batch to repeat: the data are empty")
        loop.data = RepeatedBatch(self._batch, loop.data)


_UNSET = object()


class RepeatedBatch:
    """One batch, as often as data have batches."""

    def __init__(self, batch: Any, data: Iterable[Any]) -> None:
        self.batch = batch
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        try:
            length = len(self)
        except (TypeError, NotImplementedError):  # only iterating over them shows how many
            return (self.batch for _ in self.data)
        return itertools.repeat(self.batch, length)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # TypeError where they have no length
