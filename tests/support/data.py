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
