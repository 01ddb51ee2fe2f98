"""The part of the data that each process loads."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from ttl_core import ArgumentError, RankBatches, Stateful, unwrapped
from ttl_distributed.group import ProcessGroup

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


@runtime_checkable
class RankAware(Protocol):
    """Data, or the dataset of a DataLoader, that yield the part of one process by themselves.

    In training each process has to get the same number of batches.
    """

    def set_rank(self, rank: int, size: int) -> object:
        """Yield the part of one process from the next iteration on.

        Args:
            rank: the number of the process.
            size: the number of processes.
        """


class Share:
    """The part of an epoch's data that belongs to this process.

    Args:
        group: the processes.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._parts: WeakKeyDictionary[DataLoader[Any], RankBatches] = WeakKeyDictionary()
        self._newest: RankBatches | None = None
        self._installed: list[tuple[DataLoader[Any], Any]] = []

    @contextlib.contextmanager
    def of_epoch(self) -> Iterator[None]:
        """Share out the data to which `apply` is called in a with block, until its end."""
        outer, outer_installed = self._newest, self._installed
        settings: tuple[bool, list[int], list[int]] = False, [], []
        if outer is not None:
            settings = outer.is_padding, outer.lengths, outer.whole_lengths
        self._newest, self._installed = None, []
        try:
            yield
        finally:
            for loader, batch_sampler in self._installed:
                vars(loader)["batch_sampler"] = batch_sampler
            self._newest, self._installed = outer, outer_installed
            if outer is not None:
                outer.is_padding, outer.lengths, outer.whole_lengths = settings

    def apply(self, loop: TrainTestLoop) -> None:
        """Let `loop.data`, which may have been replaced, yield the part of this process.

        Args:
            loop: the loop, in an epoch.

        Raises:
            ArgumentError: they cannot be shared.
        """
        data = loop.data
        if isinstance(data, _EveryNth):
            return
        inner = unwrapped(data)
        rank, size = self._group.rank, self._group.size
        dataset = inner.dataset if isinstance(inner, DataLoader) else None
        if isinstance(inner, RankAware):
            inner.set_rank(rank, size)
        elif isinstance(dataset, RankAware):
            dataset.set_rank(rank, size)
        elif isinstance(inner, DataLoader):
            self._install(loop, inner)
        elif isinstance(inner, Sequence | torch.Tensor) and not loop.is_training:
            loop.data = _EveryNth(data, rank, size)
        else:
            raise _cannot_be_shared(loop, inner)

    def is_padding(self, batch_num: int) -> bool:
        """Return whether the batch of this process belongs to others, and has to count nothing.

        Args:
            batch_num: the number of the batch.
        """
        lengths = self._newest.lengths if self._newest is not None else ()
        return batch_num < len(lengths) and not lengths[batch_num]

    def n_samples(self, batch_num: int) -> int | None:
        """Return how many samples a batch has in all processes; None where it is not known.

        Args:
            batch_num: the number of the batch.
        """
        lengths = self._newest.whole_lengths if self._newest is not None else ()
        return lengths[batch_num] if batch_num < len(lengths) else None

    def _install(self, loop: TrainTestLoop, loader: DataLoader[Any]) -> None:
        sampler = loader.batch_sampler
        if isinstance(sampler, RankBatches):
            self._newest = sampler
            sampler.is_padding = loop.is_training
            return
        _check_loader(loop, loader, self._group.size)
        part = self._parts.get(loader)
        if part is None or part.batches is not sampler:
            assert sampler is not None
            part = RankBatches(sampler, self._group.rank, self._group.size)
            self._parts[loader] = part
        part.is_padding = loop.is_training
        part.lengths, part.whole_lengths = [], []
        self._newest = part
        self._installed.append((loader, sampler))
        vars(loader)["batch_sampler"] = part  # a DataLoader lets none be assigned


class _EveryNth:
    """Every n-th batch of data whose batches are there already, for evaluation."""

    def __init__(self, data: Any, rank: int, size: int) -> None:
        self._data, self._rank, self._size = data, rank, size

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self._data, self._rank, None, self._size)

    def __len__(self) -> int:
        return len(range(self._rank, len(self._data), self._size))


_LINE = "DataLoader(dataset, batch_size, sampler=ttl_core.SeededSampler(dataset))"


def _check_loader(loop: TrainTestLoop, loader: DataLoader[Any], size: int) -> None:
    """Check that all processes draw the same batches, of which each can take its part.

    Raises:
        ArgumentError: they do not.
    """
    what = f"ttl-distributed: the {loop.epoch_desc} data are a {type(loader).__name__}"
    if isinstance(loader.dataset, IterableDataset) or isinstance(loader, Stateful):
        raise _cannot_be_shared(loop, loader)
    if loader.batch_sampler is None:
        raise ArgumentError(
            f"{what} without batches of its own (batch_size=None), of which no process can take "
            f"its part. Write {_LINE}"
        )
    own = loader.batch_sampler
    sampler: Any = loader.sampler if type(own) is BatchSampler else own
    if isinstance(sampler, DistributedSampler):
        raise ArgumentError(
            f"{what} whose DistributedSampler has taken the part of this process already. Each "
            f"batch is shared out by itself: write {_LINE}"
        )
    is_seeded = all(hasattr(sampler, name) for name in ("seed", "epoch", "set_epoch"))
    if not is_seeded and not isinstance(sampler, SequentialSampler):
        raise ArgumentError(
            f"{what} whose order a {type(sampler).__name__} decides, in each process another one. "
            f"In place of shuffle=True write {_LINE}"
        )
    batch_size = getattr(own, "batch_size", None)
    if loop.is_training and isinstance(batch_size, int) and batch_size < size:
        raise ArgumentError(
            f"{what} with batch_size={batch_size}, which all {size} processes share: each needs "
            f"a sample of it. Give a batch_size of at least {size}"
        )


def _cannot_be_shared(loop: TrainTestLoop, data: Any) -> ArgumentError:
    what = f"a {type(data).__name__}"
    if isinstance(data, DataLoader):
        what += f" over a {type(data.dataset).__name__}"
    return ArgumentError(
        f"ttl-distributed: the {loop.epoch_desc} data are {what}, of which it is not known how "
        f"processes share them. Write {_LINE}; or give the data, or their dataset, a method "
        "set_rank(rank, size), after which they yield the part of that process"
    )
