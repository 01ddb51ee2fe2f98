"""What the processes tell one another in each step, in one reduction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist

from ttl_core import GroupError
from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

N_NUMBERS = 5
"""How many numbers the processes add up."""
_PERIOD = 1024  # of counters, so that the means of a carrier in float32 are exact enough
_TOLERANCE = 5e-7  # of sums in float32, relative


class Outcome(NamedTuple):
    """What the processes have found in a step.

    Attributes:
        factor: by what the gradients have to be multiplied; None where all batches weigh nothing.
        has_news: whether a process has something to tell the others at the next safe point.
    """

    factor: float | None
    has_news: bool


class StepWeights:
    """The weights of the batches that make a step, for which no backward pass has to wait.

    A batch is taken to weigh as much as all processes know it has samples. When the gradients of
    the step are there, so is the sum of the weights; where it is another one, as samples count
    differently, the gradients are too large or too small by one factor.

    Args:
        group: the processes.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.reset()

    def reset(self) -> None:
        """Forget the step under way, as it or a run ends."""
        self._own = 0.0
        self._taken = 0
        self.n_pending = 0
        self._numbers: torch.Tensor | None = None
        self._work: dist.Work | None = None

    def take(self, weight: Any, n_samples: int | None) -> Any:
        """Return the weight that a batch is taken to have in all processes.

        Args:
            weight: the weight of the batch of this process.
            n_samples: how many samples the batch has in all processes; None if it is not known, and
                they wait for one another.
        """
        self.n_pending += 1
        if isinstance(weight, torch.Tensor) and not weight.is_cpu:
            return self._group.sum(weight.double())  # the device waits for it, not this process
        if n_samples is None:
            total = self._group.sum(float(weight))
            return int(total) if total.is_integer() else total
        self._own += float(weight)
        self._taken += n_samples
        return n_samples

    def send(self, loop: TrainTestLoop, carrier: torch.nn.Parameter | None) -> None:
        """Start to add up over the processes, before a backward pass in which they synchronize.

        Args:
            loop: the loop, in the batch.
            carrier: a parameter whose gradient is averaged with those of the model, and can be read
                when they can; None where there is none.
        """
        flags = self._group.has_news, loop.is_stepping
        counters = loop.batch_num % _PERIOD, loop.global_step % _PERIOD
        dtype = torch.float64 if carrier is None else carrier.dtype
        numbers = torch.tensor((self._own, *flags, *counters), dtype=dtype)
        if carrier is None:
            self._numbers = numbers
            with explaining_failures("starting a step"):
                self._work = dist.all_reduce(numbers, async_op=True)
        else:
            carrier.grad, self._numbers = None, carrier
            torch.autograd.backward(carrier, numbers)

    def settle(self, loop: TrainTestLoop) -> Outcome | None:
        """Return what the processes have found, and begin the next step; None if this makes none.

        Args:
            loop: the loop, after that backward pass.

        Raises:
            GroupError: the processes are not in the same batch, or one has ended.
        """
        if self._numbers is None:
            return None
        found, n_with_news, n_stepping, batch_nums, global_steps = self._sums(self._numbers)
        self._check(loop, n_stepping, batch_nums, global_steps)
        self._numbers = self._work = None
        if not loop.is_stepping:
            return None
        taken = self._taken
        self.reset()
        factor: float | None = 1.0
        if taken and not math.isclose(found, taken, rel_tol=_TOLERANCE):
            factor = taken / found if found else None
        return Outcome(factor, n_with_news > 0.5)

    def _sums(self, numbers: torch.Tensor) -> list[float]:
        if self._work is None:  # they are the means, in the gradient of a carrier
            assert numbers.grad is not None
            return [each * self._group.size for each in numbers.grad.tolist()]
        with explaining_failures("making a step"):
            self._work.wait()
        return numbers.tolist()

    def _check(
        self, loop: TrainTestLoop, n_stepping: float, batch_nums: float, global_steps: float
    ) -> None:
        """Check that all processes are in the same batch, and all or none make a step."""
        rank, size = self._group.rank, self._group.size
        if (
            abs(n_stepping - loop.is_stepping * size) > 0.5
            or abs(batch_nums - loop.batch_num % _PERIOD * size) > 0.5
            or abs(global_steps - loop.global_step % _PERIOD * size) > 0.5
        ):
            does = "makes a" if loop.is_stepping else "makes no"
            raise GroupError(
                f"ttl-distributed: the processes disagree: rank {rank} of {size} {does} step after "
                f"batch {loop.batch_num} of epoch {loop.epoch_num}, with global_step "
                f"{loop.global_step}, and that is not so in all others. A component decides by "
                "what only its own process knows: let it decide by loop.group.any(...)"
            )
