"""Optimizers that compute the loss several times in a step, such as LBFGS."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


def needs_closure(optimizer: Any) -> bool:
    """Return whether an optimizer cannot step without a function that computes the loss.

    Example:
        >>> import torch
        >>> weights = [torch.ones(1)]
        >>> needs_closure(torch.optim.LBFGS(weights)), needs_closure(torch.optim.SGD(weights))
        (True, False)
    """
    try:
        parameters = inspect.signature(type(optimizer).step).parameters
    except (AttributeError, TypeError, ValueError):  # a wrapper without a signature
        return False
    closure = parameters.get("closure")
    return closure is not None and closure.default is closure.empty


class Closure:
    """The loss of the batches of a step, computed again through the hooks of the loop.

    They are on_grads_reset, on_forward_pass, on_loss_compute and on_backward_pass, so components
    that accumulate, cast or scale do in each pass what they do in the first one.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[Any, Any]] = []
        self._is_running = False

    def note_batch(self, loop: TrainTestLoop) -> None:
        """Take a batch whose gradients have been computed as one of this step."""
        if not self._is_running:
            self._batches.append((loop.batch, loop.batch_size))

    def reset(self) -> None:
        """Start a new step."""
        if not self._is_running:
            self._batches = []

    def step(self, loop: TrainTestLoop) -> None:
        """Step the optimizer, which calls for the loss as often as it needs."""
        loop.optimizer.step(lambda: self._pass_again(loop))

    def _pass_again(self, loop: TrainTestLoop) -> Any:
        loss, batch, batch_size = loop.loss, loop.batch, loop.batch_size
        self._is_running = True
        total: Any = 0.0
        n_samples = sum(size for _, size in self._batches)
        try:
            loop.hook.on_grads_reset(loop=loop)
            for i, (one, size) in enumerate(self._batches):
                loop.is_stepping = i + 1 == len(self._batches)
                loop.loss = loop.recompute(one)
                loop.batch, loop.batch_size = one, size
                total = total + loop.loss.detach() * (size / n_samples)
                loop.hook.on_backward_pass(loop=loop)
            return loop.group.sum(total) / loop.group.size  # all processes step by the same
        finally:
            self._is_running = False
            loop.is_stepping = True
            loop.loss, loop.batch, loop.batch_size = loss, batch, batch_size
