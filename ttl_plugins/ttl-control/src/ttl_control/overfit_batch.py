"""The component `overfit-batch`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, RunError

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class OverfitBatch(LoopComponent):
    """Give the first training batch again and again, to find out whether a model can learn it.

    It takes the place of every batch in training and in validation, in epochs as long as they
    were. Testing is left alone. The batch is the same one as long as this component lives.

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
        self._batch: Any = _NOTHING

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Replace `loop.data`.

        Raises:
            RunError: there is no first batch.
        """
        if loop.is_testing:
            return
        if self._batch is _NOTHING:
            is_validated_first = not loop.is_training and loop.train_data is not None
            data: Any = loop.train_data if is_validated_first else loop.data
            self._batch = next(iter(data), _NOTHING)
        if self._batch is _NOTHING:
            raise RunError("overfit-batch found no batch to repeat: the data are empty")
        loop.data = _Repeated(self._batch, loop.data)


_NOTHING = object()


class _Repeated:
    """Be one batch, as often as data have batches."""

    def __init__(self, batch: Any, data: Iterable[Any]) -> None:
        self.batch = batch
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        try:
            length = len(self)
        except (TypeError, NotImplementedError):  # only going through them tells how many
            return (self.batch for _ in self.data)
        return itertools.repeat(self.batch, length)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # TypeError where they have no length
