"""A component that takes plain training steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ttl_core.components.component import LoopComponent
from ttl_core.loop import TrainTestLoop


class Step(LoopComponent):
    """Plain training steps, for components that need some around them.

    It sets the conventional loop variables as a user's own component would, with SGD on the
    cross-entropy of batches that are (inputs, targets), or have both by these names.

    Example:
        >>> from ttl_core.testing import tiny_loop
        >>> loop = tiny_loop(Step())
        >>> loop.train(n_epochs=1)
        >>> loop.loss.dim()
        0
    """

    _n_in_first_group: int | None = None  # parameters, where the kit wants two groups

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Set `loss_func`, `optimizer` and `scheduler`."""
        loop.loss_func = torch.nn.functional.cross_entropy
        parameters = [*loop.model.parameters()]
        n = self._n_in_first_group or len(parameters)
        parts = parameters[:n], parameters[n:]
        groups = [{"params": part} for part in parts if part]
        loop.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        loop.scheduler = torch.optim.lr_scheduler.StepLR(loop.optimizer, step_size=2)

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Set `loss_func`, for test() alone too."""
        loop.loss_func = torch.nn.functional.cross_entropy

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Clear the gradients."""
        loop.model.zero_grad()

    def on_forward_pass(self, loop: TrainTestLoop) -> None:
        """Set `scores`."""
        loop.scores = loop.model(_part(loop.batch, "inputs", 0))

    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        """Set `loss` and log it."""
        loop.loss = loop.loss_func(loop.scores, _part(loop.batch, "targets", 1))
        loop.log({"loss": loop.loss})

    def on_backward_pass(self, loop: TrainTestLoop) -> None:
        """Compute gradients."""
        loop.loss.backward()

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Update the parameters and the learning rate."""
        loop.optimizer.step()
        if loop.scheduler is not None:
            loop.scheduler.step()


def _part(batch: Any, name: str, index: int) -> Any:
    return batch[name if isinstance(batch, Mapping) else index]
