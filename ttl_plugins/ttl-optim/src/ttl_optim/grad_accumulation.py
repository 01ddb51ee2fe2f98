"""The component `grad-accumulation`."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class GradAccumulation(LoopComponent):
    """Step once for several batches, with the gradient that they would give as one.

    Each batch's loss counts by `loop.batch_size`, also where fewer batches are left at the end of
    an epoch: data of known length step on their last batch. Without a length what is pending
    carries into the next epoch. `loop.loss` stays the mean loss of its batch, but for those who
    compute gradients from it.

    Args:
        every: how many batches make a step.

    Raises:
        ValueError: `every` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), GradAccumulation(4)],
        ...                      ComponentConformance.make_data(6))
        >>> loop.train(n_epochs=1)
        >>> loop.global_step
        2
    """

    def __init__(self, every: int) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(f"every is {every!r}, but has to be a whole number from 1")
        self.every = every
        self._optimizer: Any = None
        self._has_looked = False
        self._loaded: Mapping[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        self._n_pending = 0
        # Weights are relative to the first batch's size, which is exactly 1 where all are of one
        # size, and keeps losses in the range of half precision.
        self._unit: Any = 1
        self._weight: Any = 0

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Set `n_optim_steps` where the number of epochs and their length are known."""
        if loop.n_optim_steps is not None and loop.n_epochs:
            n_batches = loop.n_optim_steps // loop.n_epochs
            loop.n_optim_steps = loop.n_epochs * -(-n_batches // self.every)
        return (yield)

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Begin anew: the last batch stepped, or training begins."""
        self._forget()

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Begin anew: from here on nothing is pending, so that no state holds the gradients."""
        self._forget()

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Clear `is_stepping`, unless it is time for a step."""
        if loop.is_training:
            self._look_at_gradients(loop)
            self._has_looked = True
            is_last = loop.batch_num + 1 == loop.n_batches
            if self._n_pending + 1 < self.every and not is_last:
                loop.is_stepping = False

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Weight the loss for the backward pass, and mend the gradients of uneven batches."""
        if not self._has_looked:  # it came on since the batch began
            self._look_at_gradients(loop)
        self._has_looked = False
        size = loop.batch_size
        if not self._n_pending and not isinstance(size, torch.Tensor):
            self._unit = size or 1
        weight = size / self._unit
        self._weight = self._weight + weight
        self._n_pending += 1
        loss = loop.loss
        loop.loss = loss / self.every
        if not _is_number(weight, 1):
            loop.loss = loop.loss * weight
        try:
            result = yield
        finally:
            loop.loss = loss
        if loop.is_stepping and not _is_number(self._weight, self.every):
            gradients = [p.grad for p in _parameters(loop.optimizer) if p.grad is not None]
            torch._foreach_mul_(gradients, self.every / self._weight)
        return result

    def _look_at_gradients(self, loop: TrainTestLoop) -> None:
        """Forget what was pending if somebody has dropped it: it lies in the gradients."""
        self._optimizer = loop.optimizer
        if self._loaded:
            self._restore(self._optimizer)
        elif self._n_pending:
            for group in self._optimizer.param_groups:  # plain loops, as this is in every batch
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        return
            self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Return what is pending: at a safe point that is after an epoch without a length."""
        if not self._n_pending:
            return dict(self._loaded)
        gradients = [parameter.grad for parameter in _parameters(self._optimizer)]
        if all(gradient is None for gradient in gradients):  # somebody has dropped it
            return {}
        return {
            "n_pending": self._n_pending,
            "unit": self._unit,
            "weight": self._weight,
            "gradients": gradients,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what was pending.

        Args:
            state: what `state_dict` returned.
        """
        self._forget()
        self._loaded = dict(state)  # until there are parameters

    def _restore(self, optimizer: Any) -> None:
        self._n_pending = self._loaded["n_pending"]
        self._unit = self._loaded["unit"]
        self._weight = self._loaded["weight"]
        gradients = self._loaded["gradients"]
        for parameter, gradient in zip(_parameters(optimizer), gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device, copy=True)
        self._loaded = {}


def _parameters(optimizer: Any) -> Iterator[torch.Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _is_number(value: Any, number: int) -> bool:
    """Tell whether a value is a number; of a tensor that is not asked, which would wait for it."""
    return not isinstance(value, torch.Tensor) and bool(value == number)
