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
