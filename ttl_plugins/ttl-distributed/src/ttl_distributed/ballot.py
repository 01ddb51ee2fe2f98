"""What the processes tell one another in each training batch, in one reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist

from ttl_core import GroupError
from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Outcome(NamedTuple):
    """What a ballot has found.

    Attributes:
        weight: the sum of the weights of the batch, as a whole number where it is one.
        has_news: whether a process has something to tell the others at the next safe point.
    """

    weight: Any
    has_news: bool


class Ballot:
    """A reduction that is started after the forward pass, and read when its outcome is needed.

    Args:
        group: the processes.
        loop: the loop, in a training batch.
        weight: the weight of the batch of this process.
    """

    def __init__(self, group: ProcessGroup, loop: TrainTestLoop, weight: Any) -> None:
        self._group = group
        # The weight of a batch may be on a device, where reading it would wait for that.
        is_on_device = isinstance(weight, torch.Tensor) and not weight.is_cpu
        self._weights = weight.detach().double() if is_on_device else None
        counted = 0.0 if is_on_device else float(weight)
        numbers = [counted, float(group.has_news), float(loop.is_stepping), loop.global_step]
        self._numbers = torch.tensor(numbers, dtype=torch.float64)
        self._outcome: Outcome | None = None  # once it is known
        with explaining_failures("starting a batch"):
            self._works = [dist.all_reduce(self._numbers, async_op=True)]
            if self._weights is not None:
                self._works.append(dist.all_reduce(self._weights, async_op=True))

    def result(self, loop: TrainTestLoop) -> Outcome:
        """Wait for the other processes, the first time.

        Args:
            loop: the loop, in the same batch.

        Raises:
            GroupError: the processes are not in the same batch, or one has ended.
        """
        if self._outcome is not None:
            return self._outcome
        with explaining_failures("starting a batch"):
            for work in self._works:
                work.wait()
        weight, n_with_news, n_stepping, steps = self._numbers.tolist()
        size = self._group.size
        if n_stepping not in (0, size) or steps != size * loop.global_step:
            raise GroupError(
                f"ttl-distributed: the processes disagree in batch {loop.batch_num} of epoch "
                f"{loop.epoch_num}: {int(n_stepping)} of {size} make a step after it, and the mean "
                f"of their global_step is {steps / size:g}, where that of rank "
                f"{self._group.rank} is {loop.global_step}. A component decides by what only its "
                "own process knows: let it decide by loop.group.any(...)"
            )
        if self._weights is not None:
            weight = self._weights
        elif weight.is_integer():
            weight = int(weight)
        self._outcome = Outcome(weight, n_with_news > 0)
        return self._outcome


class StepWeights:
    """The weights of the batches that make a step, for which no backward pass has to wait.

    Where the weights of the step before were the numbers of samples, which each process knows, a
    batch is taken to have that weight too. When the gradients of the step are there, all ballots
    are read; where they say otherwise, the gradients are too large or too small by one factor. All
    of this is the same in all processes.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the step under way, as a run ends."""
        self._pending: list[tuple[Ballot, Any, int | None]] = []
        self._are_samples = False  # in the step before; the first step waits

    def take(self, loop: TrainTestLoop, ballot: Ballot, n_samples: int | None) -> Any:
        """Return the weight that a batch is taken to have, before its backward pass.

        Args:
            loop: the loop, in that batch.
            ballot: the ballot of the batch.
            n_samples: how many samples the batch has in all processes; None if it is not known.

        Raises:
            GroupError: the processes are not in the same batch, or one has ended.
        """
        is_known = self._are_samples and n_samples is not None
        weight = n_samples if is_known else ballot.result(loop).weight
        self._pending.append((ballot, weight, n_samples))
        return weight

    def check(self, loop: TrainTestLoop) -> None:
        """Check that the processes agree on the batches since the last step.

        Args:
            loop: the loop.

        Raises:
            GroupError: they do not.
        """
        for ballot, _, _ in self._pending:
            ballot.result(loop)

    def settle(self, loop: TrainTestLoop) -> tuple[Any, bool]:
        """Return by what the gradients of a step have to be multiplied, and whether there is news.

        Returns:
            The factor, None for 1; and whether a process has something to tell the others.

        Args:
            loop: the loop, after the backward pass of a batch that makes a step.

        Raises:
            GroupError: the processes are not in the same batch, or one has ended.
        """
        pending, self._pending = self._pending, []
        outcomes = [ballot.result(loop) for ballot, _, _ in pending]
        taken, found = [weight for _, weight, _ in pending], [each.weight for each in outcomes]
        self._are_samples = all(map(_is_same, found, (n_samples for _, _, n_samples in pending)))
        has_news = any(each.has_news for each in outcomes)
        if all(map(_is_same, taken, found)):
            return None, has_news
        total = sum(found)
        if isinstance(total, torch.Tensor):  # which is on a device, and read there
            return torch.where(total == 0, 1.0, sum(taken) / total), has_news
        return (sum(taken) / total if total else None), has_news


def _is_same(weight: Any, other: Any) -> bool:
    """Return whether weights are equal, without reading those on a device."""
    if isinstance(weight, torch.Tensor) or isinstance(other, torch.Tensor):
        return weight is other
    return bool(weight == other)
