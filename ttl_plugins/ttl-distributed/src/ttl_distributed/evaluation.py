"""Ending an evaluation on its own in all processes at the same batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


SECONDS = 0.05
"""How long processes take batches between two votes; at least one."""


class EvaluationVotes:
    """Votes on whether to end a test, a prediction or a validation that is no part of training.

    Processes vote before a batch, and read the result at the next vote, so that none waits for it.
    One that has no batch left votes until all have none: their numbers may differ. How many batches
    there are between two votes is what the main process says at the vote before.

    Args:
        group: the processes.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.reset()

    def reset(self) -> None:
        """Forget the vote under way, as an epoch begins."""
        self._vote: tuple[torch.Tensor, dist.Work | None] | None = None
        self._due = self._n_between = 0
        self._voted_at = 0.0

    def vote(self, loop: TrainTestLoop, batch_num: int) -> None:
        """Vote before a batch, where it is time to; end the run, if one has asked for it.

        Args:
            loop: the loop, in an epoch of evaluation.
            batch_num: the number of the batch, of this process or of those that have more.
        """
        # in training a request waits for the next safe point
        if batch_num >= self._due and loop.run_desc != "train":
            self._read(loop)
            self._start(has_batch=True)
            self._due = batch_num + self._n_between

    def finish(self, loop: TrainTestLoop) -> None:
        """Vote after the last batch until no process has another one.

        Args:
            loop: the loop, in an epoch of evaluation.
        """
        if loop.run_desc != "train":
            while self._read(loop):
                self._start(has_batch=False)

    def _start(self, *, has_batch: bool) -> None:
        now = time.perf_counter()
        n = 1
        if self._n_between and has_batch:
            n = max(int(SECONDS * self._n_between / (now - self._voted_at)), 1)
        self._voted_at = now
        flags = self._group.has_news, has_batch, n * self._group.is_main
        numbers = torch.tensor(flags, dtype=torch.int64)
        with explaining_failures("an evaluation"):
            self._vote = numbers, dist.all_reduce(numbers, async_op=True)

    def _read(self, loop: TrainTestLoop) -> bool:
        """Return whether a process had a batch at the last vote; end the run, if one asks for it.

        Before the first vote it is True.
        """
        if self._vote is None:
            self._n_between = 1
            return True
        (numbers, work), self._vote = self._vote, None
        with explaining_failures("an evaluation"):
            if work is not None:
                work.wait()
        n_with_news, n_with_batch, self._n_between = numbers.tolist()
        if n_with_news:
            self._group.exchange()
            self._group.announced.clear()
            if self._group.agreed_cause is not None:
                loop.stop()
        return bool(n_with_batch)
