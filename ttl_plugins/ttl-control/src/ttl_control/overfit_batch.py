"""The component `overfit-batch`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, RunError

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class OverfitBatch(LoopComponent):
    """The first training batch in place of every batch, to see whether a model can learn it.

    It replaces every batch in training and in validation, in epochs of the same length as without
    it. Testing and prediction are left alone. The batch stays the same as long as this component
    exists, and in a run that resumes.

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
        n_batches = _length_of(loop.data)
        if n_batches is None:
            loop.data = BatchForEach(self._current_batch, loop.data)
        else:
            loop.data = RepeatedBatch(self._current_batch, n_batches)

    def _current_batch(self) -> Any:
        return self._batch

    def state_dict(self) -> dict[str, Any]:
        """Return the batch, if there is one yet."""
        return {} if self._batch is _UNSET else {"batch": self._batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the batch.

        Args:
            state: what `state_dict` returned.
        """
        self._batch = state.get("batch", self._batch)


_UNSET = object()


def _length_of(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # only iterating over them shows how many
        return None


class RepeatedBatch(Sequence[Any]):
    """One batch, repeated.

    Args:
        current_batch: returns the batch, which resuming changes after this was created.
        n: how often.
    """

    def __init__(self, current_batch: Callable[[], Any], n: int) -> None:
        self.current_batch = current_batch
        self.n = n

    def __getitem__(self, index: Any) -> Any:
        range(self.n)[index]  # IndexError behind the end
        return self.current_batch()

    def __iter__(self) -> Iterator[Any]:
        return (self.current_batch() for _ in range(self.n))

    def __len__(self) -> int:
        return self.n


class BatchForEach:
    """One batch in place of each batch of data whose number is not known.

    Args:
        current_batch: returns the batch, which resuming changes after this was created.
        data: the data.

    Attributes:
        wrapped_data: the data.
    """

    def __init__(self, current_batch: Callable[[], Any], data: Iterable[Any]) -> None:
        self.current_batch = current_batch
        self.wrapped_data = data

    def __iter__(self) -> Iterator[Any]:
        return self.iterate_rest(self.wrapped_data, 0)

    def iterate_rest(self, batches: Iterable[Any], n_batches: int) -> Iterator[Any]:
        """Return an iterator over the rest of an epoch.

        Args:
            batches: what is left of the wrapped data.
            n_batches: how many batches of this epoch were consumed.
        """
        return (self.current_batch() for _ in batches)
