"""The size of the batches of a DataLoader, and batches of other sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from ttl_core import ArgumentError


def underlying_loader(data: Any) -> DataLoader[Any]:
    """Return the loader of data, of which the batch size can be changed.

    Args:
        data: a DataLoader, or data that wrap one.

    Raises:
        ArgumentError: there is none, or no batch size.
    """
    while hasattr(data, "wrapped_data"):
        data = data.wrapped_data
    fix = "Give a DataLoader(dataset, batch_size=...)"
    if not isinstance(data, DataLoader):
        raise ArgumentError(
            f"the training data are a {type(data).__name__}, of which no batch size can be set. "
            f"{fix}"
        )
    if not isinstance(getattr(data.batch_sampler, "batch_size", None), int):
        sampler = data.batch_sampler
        what = "no batch sampler" if sampler is None else f"a {type(sampler).__name__}"
        raise ArgumentError(
            f"the DataLoader of the training data has {what}, without a batch_size. {fix}, or a "
            "batch sampler with that attribute"
        )
    return data


def batch_size_of(loader: Any) -> int:
    """Return the batch size of a loader."""
    size: int = loader.batch_sampler.batch_size
    return size


def set_batch_size(loader: Any, size: int) -> None:
    """Set the batch size of a loader, from its next epoch on.

    Args:
        loader: the loader.
        size: the size.
    """
    loader.batch_sampler.batch_size = size
    if loader.batch_size is not None:  # where it has made its batch sampler itself
        vars(loader)["batch_size"] = size  # a DataLoader lets none be assigned


class RepeatedBatch:
    """Data that are one batch several times, loaded when an epoch begins.

    Args:
        loader: the loader that determines how samples are loaded, and which; it is changed.
        size: the number of samples.
        n: how often the batch is yielded.
    """

    def __init__(self, loader: Any, size: int, n: int) -> None:
        self.loader, self.size, self.n = loader, size, n

    def __iter__(self) -> Iterator[Any]:
        loader = self.loader
        set_batch_size(loader, self.size)
        is_stream = isinstance(loader.dataset, IterableDataset)
        options: dict[str, Any] = {"batch_sampler": loader.batch_sampler}
        if is_stream:
            options = {"batch_size": self.size}
        # without worker processes, which would load further batches that are not needed
        own = DataLoader(loader.dataset, collate_fn=loader.collate_fn, **options)
        for batch in itertools.islice(own, 1):
            yield from itertools.repeat(batch, self.n)

    def __len__(self) -> int:
        return self.n
