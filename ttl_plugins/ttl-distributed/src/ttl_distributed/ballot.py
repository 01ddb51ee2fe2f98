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

_ALMOST_NOTHING = 1e-9  # which can be divided by, in place of 0


class Outcome(NamedTuple):
    """What a ballot has found.

    Attributes:
        weight: the sum of the weights of the batch, as a whole number where it is one.
        has_news: whether a process has something to tell the others at the next safe point.
    """

    weight: Any
    has_news: bool


class Ballot:
    """A reduction that is started after the forward pass, and read before the backward pass.

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
        with explaining_failures("starting a batch"):
            self._works = [dist.all_reduce(self._numbers, async_op=True)]
            if self._weights is not None:
                self._works.append(dist.all_reduce(self._weights, async_op=True))

    def result(self, loop: TrainTestLoop) -> Outcome:
        """Wait for the other processes.

        Args:
            loop: the loop, in the same batch.

        Raises:
            GroupError: the processes are not in the same batch, or one has ended.
        """
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
            return Outcome(self._weights, n_with_news > 0)
        return Outcome(int(weight) if weight.is_integer() else weight, n_with_news > 0)


class StepWeights:
    """The weights of the batches that make a step, for which accumulating ones do not wait.

    Where the weights of the step before were the numbers of samples, which each process knows, a
    batch that does not step is taken to have that weight too. The batch that steps waits for all
    ballots; where one of them says otherwise, its own weight makes up for the difference, as
    accumulation divides by the sum of weights. All of this is the same in all processes.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the step under way, as a run ends."""
        self._pending: list[tuple[Ballot, int]] = []
        self._are_samples, self._were_samples = True, False  # the first step waits

    def outcome(self, loop: TrainTestLoop, ballot: Ballot, n_samples: int | None) -> Outcome:
        """Return what the ballot of a batch has found, or will find in all likelihood.

        Args:
            loop: the loop, before the backward pass of that batch.
            ballot: the ballot.
            n_samples: how many samples the batch has in all processes; None if it is not known.

        Raises:
            GroupError: the processes are not in the same batch, or one has ended.
        """
        if self._were_samples and n_samples is not None and not loop.is_stepping:
            self._pending.append((ballot, n_samples))
            return Outcome(n_samples, has_news=False)
        weight, has_news = ballot.result(loop)
        self._are_samples &= not isinstance(weight, torch.Tensor) and weight == n_samples
        for earlier, taken in self._pending:
            found = earlier.result(loop)
            has_news |= found.has_news
            if isinstance(found.weight, torch.Tensor):
                self._are_samples = False
                weight = weight + found.weight - taken
            elif found.weight != taken:
                self._are_samples = False
                weight = (weight + found.weight - taken) or _ALMOST_NOTHING
        if loop.is_stepping:
            self._pending = []
            self._were_samples, self._are_samples = self._are_samples, True
        return Outcome(weight, has_news)
