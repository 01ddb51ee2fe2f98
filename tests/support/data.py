"""Data for tests that need more than a list of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


class Stream:
    """Batches without a length.

    Args:
        batches: the batches of each epoch.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __repr__(self) -> str:
        return f"Stream({self.batches})"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class Wrapped:
    """Data around others, as components give them.

    Args:
        wrapped_data: the others.
    """

    def __init__(self, wrapped_data: Iterable[Any]) -> None:
        self.wrapped_data = wrapped_data

    def __iter__(self) -> Iterator[Any]:
        return iter(self.wrapped_data)

    def iterate_rest(self, batches: Iterable[Any], n_batches: int) -> Iterator[Any]:
        """Return an iterator over the rest of an epoch, which is that of the others."""
        return iter(batches)
