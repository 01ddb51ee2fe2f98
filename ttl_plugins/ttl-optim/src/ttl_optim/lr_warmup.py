"""The component `lr-warmup`."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from ttl_core import TrainTestLoop


class LrWarmup(LoopComponent):
    """Warm the learning rate up linearly, on top of whatever scheduler there is.

    In the optimization step number i, counted by `loop.global_step` from 0, the optimizer sees its
    learning rates multiplied by (i + 1) / n_steps; from step n_steps - 1 on it sees them as they
    are. Nobody else ever sees the product: schedulers may be of any kind.

    Args:
        n_steps: after how many optimization steps the learning rate is whole.

    Raises:
        ValueError: `n_steps` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), LrWarmup(100)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.scheduler.get_last_lr()
        [0.010000000000000002]
    """

    def __init__(self, n_steps: int) -> None:
        if not isinstance(n_steps, int) or isinstance(n_steps, bool) or n_steps < 1:
            raise ValueError(f"n_steps is {n_steps!r}, but has to be a whole number from 1")
        self.n_steps = n_steps
        self._factor = 1.0
        self._hooked: Optimizer | None = None
        self._handles: list[RemovableHandle] = []
        self._full: list[tuple[dict[str, Any], Any]] = []

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Leave the optimizer without hooks."""
        try:
            return (yield)
        finally:
            self._unhook()

    @hookimpl(wrapper=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Scale the learning rates of `loop.optimizer` for just its step."""
        factor = (loop.global_step + 1) / self.n_steps
        if factor >= 1:
            self._unhook()
            return (yield)
        if loop.optimizer is not self._hooked:
            self._hook(loop.optimizer)
        self._factor = factor
        try:
            return (yield)
        finally:
            self._factor = 1.0
            self._put_back()  # where the step failed

    # Learning rates are scaled by the optimizer's own hooks, because a scheduler mostly steps right
    # after it, in the same callback point: many compute the next learning rate from the one that
    # they find. Registering them takes longer than they do, so they stay from step to step.

    def _hook(self, optimizer: Optimizer) -> None:
        self._unhook()
        self._hooked = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._scale),
            optimizer.register_step_post_hook(self._put_back),
        ]

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._hooked = None

    def _scale(self, optimizer: Optimizer, *_: object) -> None:
        if self._factor != 1.0:  # else somebody steps while this component is off
            for group in optimizer.param_groups:
                self._full.append((group, group["lr"]))
                group["lr"] = group["lr"] * self._factor

    def _put_back(self, *_: object) -> None:
        for group, lr in self._full:
            group["lr"] = lr  # the very object that was there, be it a number or a tensor
        self._full.clear()
