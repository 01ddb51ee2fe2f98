"""The component `grad-accumulation`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, distributed_like, hookimpl, optimizer_parameters
from ttl_core.arguments import whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class GradAccumulation(LoopComponent):
    """One optimization step for several batches, with the gradient of one big batch.

    Each batch's loss counts by `loop.batch_size`, also where fewer batches are left at the end of
    an epoch: data of known length step on their last batch. Without a length, what is pending
    carries into the next epoch. `loop.loss` stays the mean loss of its batch, except within
    on_backward_pass, where gradients are computed from it. A batch of weight 0 adds nothing to the
    gradient, and where all batches of a step have weight 0 there is no step.

    Args:
        every: how many batches make a step.

    Raises:
        ArgumentError: `every` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), GradAccumulation(4)],
        ...                      ComponentConformance.make_data(6))
        >>> loop.train(n_epochs=1)
        >>> loop.global_step
        2
    """

    only_once = True  # a second one would weight each loss again

    def __init__(self, every: int) -> None:
        self.every = whole_number("every", every, at_least=1)
        self._has_checked_gradients = False  # in this batch
        self._loaded: Mapping[str, Any] = {}
        self._reset()

    def _reset(self) -> None:
        """Drop what is known of pending gradients."""
        self._n_pending = 0
        self._parameters: list[torch.Tensor] = []  # those whose gradients are pending
        # Weights are relative to the size of the step's first batch that is not 0: that is exactly
        # 1 where all have the same size, and keeps losses in the range of half precision.
        self._unit: Any = 0
        self._weight: Any = 0
        self._is_on_device = False  # whether they are tensors, of which reading one would wait

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Set `n_optim_steps` where the number of epochs and their length are known."""
        if loop.n_optim_steps is not None and loop.n_epochs:
            n_batches = loop.n_optim_steps // loop.n_epochs
            loop.n_optim_steps = loop.n_epochs * -(-n_batches // self.every)
        return (yield)

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Start a new step: the last batch stepped, or training begins."""
        self._reset()

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Note that nothing is pending from here on, so that no state holds the gradients."""
        self._reset()

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Clear `is_stepping`, unless it is time for a step."""
        if loop.is_training:
            self._check_gradients(loop)
            self._has_checked_gradients = True
            is_last = loop.batch_num + 1 == loop.n_batches
            if self._n_pending + 1 < self.every and not is_last:
                loop.is_stepping = False

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Weight the loss for the backward pass, and rescale the gradients of uneven batches."""
        if not self._has_checked_gradients:  # this component was enabled since the batch began
            self._check_gradients(loop)
        self._has_checked_gradients = False
        if not self._n_pending:
            self._parameters = list(optimizer_parameters(loop))
        weight = self._weigh(loop.batch_size)
        self._weight = self._weight + weight
        self._n_pending += 1
        loss = loop.loss
        is_empty = False
        if not self._is_on_device and weight == 0:
            # not 0 times the loss: the mean loss of nothing is NaN, and so would gradients be
            loop.loss = torch.zeros_like(loss, requires_grad=True) * 1
            if loop.is_stepping and self._weight == 0:
                is_empty = True
                loop.is_stepping = False
        else:
            # Divided in single precision: a component that scales the result of a half-precision
            # loss would otherwise scale its gradient beyond the range of half precision.
            loop.loss = (loss.float() if loss.itemsize < 4 else loss) / self.every
            if self._is_on_device or weight != 1:
                loop.loss = loop.loss * weight
        try:
            result = yield
        finally:
            loop.loss = loss
        if is_empty:
            self._reset()
        elif loop.is_stepping and (self._is_on_device or self._weight != self.every):
            self._rescale(loop)
        return result

    def _weigh(self, size: Any) -> Any:
        """Return the weight of a batch, relative to that of the step's first batch."""
        if not isinstance(size, int) and isinstance(size, torch.Tensor):
            if size.is_cpu:
                size = size.item()
            else:
                self._is_on_device = True
        if not self._is_on_device:
            self._unit = self._unit or size
            return size / self._unit if self._unit else 0
        if isinstance(self._unit, torch.Tensor):
            self._unit = torch.where(self._unit == 0, size, self._unit)
        else:
            self._unit = self._unit or size
        weight = size / self._unit
        if isinstance(self._unit, torch.Tensor):
            weight = torch.where(self._unit == 0, 0.0, weight)
        return weight

    def _rescale(self, loop: TrainTestLoop) -> None:
        """Multiply the gradients by what the weights of a step differ from `every`."""
        if self._is_on_device:
            scale = torch.where(self._weight == 0, 1.0, self.every / self._weight)
        else:
            scale = self.every / self._weight
        gradients = [p.grad for p in optimizer_parameters(loop) if p.grad is not None]
        if gradients:  # a batch may have none that are the optimizer's
            torch._foreach_mul_(gradients, scale)

    def _check_gradients(self, loop: TrainTestLoop) -> None:
        """Reset if a component has dropped what was pending, which is held in the gradients."""
        if self._loaded:
            self._restore(loop)
        elif self._n_pending and not self._has_gradients():
            self._reset()

    def _has_gradients(self) -> bool:
        """Return whether the gradients that are pending are there; of weight 0 there are none."""
        if not self._is_on_device and self._weight == 0:
            return True
        return any(parameter.grad is not None for parameter in self._parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return what is pending: at a safe point that is after an epoch without a length."""
        if not self._n_pending:
            return dict(self._loaded)
        if not self._has_gradients():  # a component has dropped them
            return {}
        return {
            "n_pending": self._n_pending,
            "every": self.every,
            "unit": self._unit,
            "weight": self._weight,
            "gradients": [parameter.grad for parameter in self._parameters],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what was pending, also where it was saved with another `every`.

        Args:
            state: what `state_dict` returned.
        """
        self._reset()
        self._loaded = dict(state)  # until there are parameters

    def _restore(self, loop: TrainTestLoop) -> None:
        self._n_pending = self._loaded["n_pending"]
        self._unit = self._loaded["unit"]
        self._weight = self._loaded["weight"]
        self._is_on_device = isinstance(self._weight, torch.Tensor)
        self._parameters = list(optimizer_parameters(loop))
        gradients = self._loaded["gradients"]
        saved_every = self._loaded.get("every", self.every)  # by which they are divided
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = None
            if gradient is not None:
                parameter.grad = distributed_like(gradient, parameter).clone()
                if saved_every != self.every:
                    parameter.grad *= saved_every / self.every
        self._loaded = {}
