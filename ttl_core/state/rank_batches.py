"""The part of each batch that one process of a group loads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import Sampler


class RankBatches(Sampler[list[Any]]):
    """A batch sampler that yields the part of one process of each batch of another one.

    Rank r of n takes every n-th index from the r-th on. So the processes of a group load together
    the batches that one process would load alone, also where their number changes, and the
    position of a run in its data is the number of those batches.

    Args:
        batches: the batch sampler that one process would have.
        rank: the number of this process.
        size: the number of processes.

    Attributes:
        batches: as given.
        is_padding: whether a process without a part in a batch loads its first sample, so that
            all have the same number of batches; it has to count with weight 0. Without it there
            is no such batch.
        lengths: of the batches drawn so far in the newest iteration, how many samples of each
            belong to this process.
        whole_lengths: the same of all processes together.

    Example:
        >>> from torch.utils.data import BatchSampler
        >>> batches = BatchSampler(range(7), batch_size=3, drop_last=False)
        >>> [list(RankBatches(batches, rank, 2)) for rank in range(2)]
        [[[0, 2], [3, 5], [6]], [[1], [4]]]
        >>> part = RankBatches(batches, 1, 2)
        >>> part.is_padding = True
        >>> list(part), part.lengths
        ([[1], [4], [6]], [1, 1, 0])
    """

    def __init__(self, batches: Iterable[Any], rank: int, size: int) -> None:
        self.batches = batches
        self.rank = rank
        self.size = size
        self.is_padding = False
        self.lengths: list[int] = []
        self.whole_lengths: list[int] = []

    def __iter__(self) -> Iterator[list[Any]]:
        # A generator, so that it begins when it is first advanced: a DataLoader with workers makes
        # two iterators and uses one.
        lengths = self.lengths = []
        whole_lengths = self.whole_lengths = []
        for batch in map(list, self.batches):
            own = batch[self.rank :: self.size]
            lengths.append(len(own))
            whole_lengths.append(len(batch))
            if own:
                yield own
            elif self.is_padding:
                yield batch[:1]

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # as torch's samplers
