"""Ending an evaluation on its own in all processes at the same batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class EvaluationVotes:
    """Votes on whether to end a test, a prediction or a validation that is no part of training.

    Processes vote before each batch, and read the result before the next one, so that none waits
    for it. One that has no batch left votes until all have none: their numbers may differ.

    Args:
        group: the processes.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._vote: tuple[torch.Tensor, dist.Work | None] | None = None

    def reset(self) -> None:
        """Forget the vote under way, as an epoch begins or ends."""
        self._vote = None

    def vote(self, loop: TrainTestLoop) -> None:
        """Vote before a batch; end the run, if a process has asked for it at the vote before.

        Args:
            loop: the loop, in an epoch of evaluation.
        """
        if loop.run_desc != "train":  # there a request waits for the next safe point
            self._read(loop)
            self._start(has_batch=True)

    def finish(self, loop: TrainTestLoop) -> None:
        """Vote after the last batch until no process has another one.

        Args:
            loop: the loop, in an epoch of evaluation.
        """
        if loop.run_desc != "train":
            while self._read(loop):
                self._start(has_batch=False)

    def _start(self, *, has_batch: bool) -> None:
        numbers = torch.tensor([self._group.has_news, has_batch], dtype=torch.int64)
        with explaining_failures("an evaluation"):
            self._vote = numbers, dist.all_reduce(numbers, async_op=True)

    def _read(self, loop: TrainTestLoop) -> bool:
        """Return whether a process had a batch at the last vote; end the run, if one asks for it.

        Before the first vote it is True.
        """
        if self._vote is None:
            return True
        (numbers, work), self._vote = self._vote, None
        with explaining_failures("an evaluation"):
            if work is not None:
                work.wait()
        n_with_news, n_with_batch = numbers.tolist()
        if n_with_news:
            self._group.exchange()
            self._group.announced.clear()
            if self._group.agreed_cause is not None:
                loop.stop()
        return bool(n_with_batch)
