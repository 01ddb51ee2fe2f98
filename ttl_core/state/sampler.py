"""A sampler and a dataset whose order and random augmentation a resumed run can repeat."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from ttl_core.arguments import describe, whole_number
from ttl_core.errors import ArgumentError, ConfigurationError


class SeededIndex(int):
    """The index of a sample, with the order that it is part of, also in a worker process.

    Attributes:
        seed: the seed of the order.
        epoch: the number of the epoch.
    """

    seed: int
    epoch: int

    def __new__(cls, index: int, seed: int, epoch: int) -> SeededIndex:
        """Create one from an index."""
        self = super().__new__(cls, index)
        self.seed, self.epoch = seed, epoch
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return SeededIndex, (int(self), self.seed, self.epoch)


class SeededSampler(Sampler[int]):
    """A sampler that shuffles a dataset in an order that is a function of (seed, epoch).

    That is what lets a run resume in the middle of an epoch: the order can be repeated, and the
    samples that were consumed are skipped without being loaded. Each iteration is an epoch; the
    next one has the next number.

    Args:
        dataset: the dataset, of which only the length is used.
        seed: the seed of the order, a whole number from 0 to 2**63 - 1.
        shuffle: whether to shuffle. Without it the indices are in order, and still know the epoch.

    Attributes:
        epoch: the number of the next iteration.

    Raises:
        ArgumentError: `seed` is out of range.
        ConfigurationError: `dataset` has no length.

    Example:
        >>> sampler = SeededSampler(range(5), seed=1)
        >>> first, second = list(sampler), list(sampler)
        >>> first == second, sorted(first) == sorted(second)
        (False, True)
        >>> sampler.set_epoch(0)
        >>> list(sampler) == first
        True
    """

    def __init__(self, dataset: Sized, seed: int = 0, *, shuffle: bool = True) -> None:
        if not hasattr(dataset, "__len__"):
            raise ConfigurationError(
                f"dataset is {describe(dataset)}, which has no length to shuffle. Give one with "
                "__len__ and __getitem__; a stream needs no sampler"
            )
        self.dataset = dataset
        self.seed = whole_number("seed", seed)
        if self.seed >= 2**63:
            raise ArgumentError(f"seed is {seed!r}, but has to be below 2**63")
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next iteration, as torch's DistributedSampler has it.

        Args:
            epoch: the number.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        # A generator, so that an epoch begins when the first index is asked for: a DataLoader with
        # workers makes two iterators and uses one.
        epoch, n = self.epoch, len(self.dataset)
        self.epoch += 1
        if self.shuffle:
            indices = torch.randperm(n, generator=_generator(self.seed, epoch)).tolist()
        else:
            indices = list(range(n))
        for index in indices:
            yield SeededIndex(index, self.seed, epoch)

    def __len__(self) -> int:
        return len(self.dataset)


def sample_generator(index: int) -> torch.Generator:
    """Return the generator of one sample: a function of (seed, epoch, index), in any worker.

    Args:
        index: what a dataset's `__getitem__` was given by a SeededSampler.

    Raises:
        ConfigurationError: it was given by another sampler.

    Example:
        >>> index = next(iter(SeededSampler(range(5))))
        >>> float(torch.rand((), generator=sample_generator(index))) == float(
        ...     torch.rand((), generator=sample_generator(index)))
        True
    """
    if not isinstance(index, SeededIndex):
        raise ConfigurationError(
            f"{index!r} is a {type(index).__name__}, which knows no seed: this dataset is not "
            "sampled by a SeededSampler. Write DataLoader(dataset, ..., "
            "sampler=SeededSampler(dataset))"
        )
    return _generator(index.seed, index.epoch, int(index))


class SeededSamples(Dataset[Any]):
    """A dataset whose samples draw the same random numbers wherever they are loaded.

    While a sample is loaded, the global random streams of Python, NumPy and torch are those of
    (seed, epoch, index); afterwards they are what they were. So augmentation that draws from them
    needs no change.

    Args:
        dataset: the dataset; its loader's sampler has to be a SeededSampler.

    Example:
        >>> class Noisy(Dataset):
        ...     def __len__(self):
        ...         return 3
        ...
        ...     def __getitem__(self, index):
        ...         return torch.rand(())
        >>> data = SeededSamples(Noisy())
        >>> index = next(iter(SeededSampler(data)))
        >>> bool(data[index] == data[index])
        True
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        seed = sample_generator(index).initial_seed()
        numpy = sys.modules.get("numpy")
        python_state, numpy_state = random.getstate(), numpy and numpy.random.get_state()
        try:
            with torch.random.fork_rng(devices=()):
                torch.default_generator.manual_seed(seed)
                random.seed(seed)
                if numpy:
                    numpy.random.seed(seed % 2**32)
                return self.dataset[int(index)]
        finally:
            random.setstate(python_state)
            if numpy:
                numpy.random.set_state(numpy_state)


def _generator(*numbers: int) -> torch.Generator:
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    # 63 bits: negative seeds are remapped
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
