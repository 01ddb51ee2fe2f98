"""What components that mix the samples of a batch have in common."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ttl_augment.batches import parts, soft, with_parts
from ttl_core import ArgumentError, LoopComponent, RunError, hookimpl
from ttl_core.arguments import describe, number, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Mixing(LoopComponent):
    """The base class of components that mix each sample of a batch with another one.

    Args:
        alpha: both parameters of the beta distribution that shares are drawn from.
        n_classes: the number of classes, where targets are classes by number.
        probability: how likely a batch is mixed.
        seed: the seed of the random numbers.
    """

    def __init__(self, alpha: float, n_classes: int | None, probability: float, seed: int) -> None:
        self.alpha = number("alpha", alpha, above=0)
        self.n_classes = None
        if n_classes is not None:
            self.n_classes = whole_number("n_classes", n_classes, at_least=1)
        if not 0 <= number("probability", probability) <= 1:
            raise ArgumentError(
                f"probability is {describe(probability)}, but has to be a number from 0 to 1"
            )
        self.probability = probability
        self.seed = whole_number("seed", seed)
        self._n_batches = 0  # so far; random numbers are a function of it and of the seed
        self._random = random.Random()
        self._hard: torch.Tensor | None = None  # the targets of this batch, if it is mixed

    def mix(
        self, inputs: torch.Tensor, order: torch.Tensor, share: float
    ) -> tuple[torch.Tensor, float]:
        """Return mixed inputs, and the share in them of the samples themselves.

        Args:
            inputs: the inputs.
            order: which sample each one is mixed with.
            share: the share that was drawn.
        """
        raise NotImplementedError

    def order(self, n: int, seed: int, rank: int) -> torch.Tensor:
        """Return which sample each one of a batch is mixed with.

        Args:
            n: the number of samples, of a group those of this process.
            seed: the seed of this batch, the same in all processes.
            rank: the number of the process, each of which has an order of its own.
        """
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed ^ rank))

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Replace the batch of a training epoch by one of mixed samples.

        Raises:
            RunError: the batch has no inputs and targets that can be mixed.
        """
        if not loop.is_training:
            return
        self._hard = None
        # Python's numbers: reading one out of a tensor would look like waiting for a device
        self._random.seed(f"{self.seed}/{self._n_batches}")
        self._n_batches += 1
        if self._random.random() >= self.probability:
            return
        inputs, targets = parts(loop.batch, partial(loop.components.name_of, self))
        self._check(loop, inputs, targets)
        if self._is_mixed(loop):
            return
        share = self._random.betavariate(self.alpha, self.alpha)
        # in a group only the order differs: the share of a batch is one, as in one process
        order = self.order(len(inputs), self._random.getrandbits(63), loop.group.rank)
        order = order.to(inputs.device, non_blocking=True)
        mixed, share = self.mix(inputs, order, share)
        order = order.to(targets.device)
        self._hard = targets if share >= 0.5 else targets[order]
        try:
            own = soft(targets, self.n_classes, inputs.dtype)
        except (RuntimeError, IndexError) as error:
            n = self.n_classes
            if n is None or targets.is_cuda:  # of a CUDA device that has failed nothing can be read
                raise
            beyond = [one for one in targets.unique().tolist() if not 0 <= one < n]
            if not beyond:
                raise
            raise RunError(
                f"{loop.components.name_of(self)!r} found the class {beyond[0]} in the targets of "
                f"a batch, but was given n_classes={n}, with which classes are from 0 to {n - 1}. "
                "Give it the number of classes of the model, or correct the targets"
            ) from error
        loop.batch = with_parts(loop.batch, mixed, torch.lerp(own[order], own, share))

    @hookimpl(wrapper=True, tryfirst=True)
    def on_batch_end(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Show other components the targets with the larger share, as metrics need."""
        if self._hard is None or not loop.is_training:
            return (yield)
        batch, hard = loop.batch, self._hard
        inputs, targets = parts(batch, partial(loop.components.name_of, self))
        if len(targets) < len(hard):  # a component after it has cut the batch
            hard = hard[: len(targets)]
        loop.batch = with_parts(batch, inputs, hard.to(targets.device))
        try:
            return (yield)
        finally:
            loop.batch, self._hard = batch, None

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches, from which random numbers follow."""
        return {"n_batches": self._n_batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the random numbers of a later batch.

        Args:
            state: what `state_dict` returned.
        """
        self._n_batches = state["n_batches"]
        self._hard = None

    def _is_mixed(self, loop: TrainTestLoop) -> bool:
        """Return whether a component before it in the list has mixed this batch."""
        for other in loop.components:
            if other is self:
                break
            is_used = isinstance(other, Mixing) and other._hard is not None
            if is_used and loop.components.is_enabled(other):
                return True
        return False

    def _check(self, loop: TrainTestLoop, inputs: Any, targets: Any) -> None:
        if not isinstance(inputs, torch.Tensor) or not inputs.is_floating_point():
            problem = f"inputs that are {describe(inputs)}: give a tensor of floating-point numbers"
        elif not isinstance(targets, torch.Tensor):
            problem = f"targets that are {describe(targets)}, no tensor"
        elif self.n_classes is None and not targets.is_floating_point():
            problem = (
                f"targets of the type {targets.dtype}, classes by number, without knowing how many "
                f"there are: write use({loop.components.name_of(self)!r}, n_classes=...)"
            )
        else:
            return
        raise RunError(f"{loop.components.name_of(self)!r} cannot mix {problem}")
