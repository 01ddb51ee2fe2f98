"""The component `lr-warmup`."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import whole_number
from ttl_optim.long_warmup import warn_of_long_warmup

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from ttl_core import TrainTestLoop


class LrWarmup(LoopComponent):
    """A linear warm-up of the learning rate, on top of any scheduler or none.

    In the optimization step number i, counted by `loop.global_step` from 0, the optimizer sees its
    learning rates multiplied by (i + 1) / n_steps; from step n_steps - 1 on it sees them as they
    are. No other component ever sees the product, so schedulers may be of any type. A train() that
    ends before that gives a warning.

    Args:
        n_steps: the number of optimization steps after which the learning rate is the full one.

    Raises:
        ArgumentError: `n_steps` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), LrWarmup(2)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.global_step
        3
    """

    only_once = True  # a second one would take a lowered rate for the full one

    def __init__(self, n_steps: int) -> None:
        self.n_steps = whole_number("n_steps", n_steps, at_least=1)
        self._factor = 1.0
        self._hooked: Optimizer | None = None
        self._handles: list[RemovableHandle] = []
        self._full_rates: list[tuple[dict[str, Any], Any]] = []  # parameter group, learning rate

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Leave the optimizer without hooks."""
        try:
            return (yield)
        finally:
            self._unhook()

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Warn of a warm-up that is too long, once all components have set how long the run is."""
        result = yield
        # of a script with several train() calls, over which the ramp extends, once
        if loop.global_step == 0 and not loop.has_loaded_state:
            warn_of_long_warmup("lr-warmup", self.n_steps, loop.n_optim_steps)
        return result

    @hookimpl(wrapper=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Scale the learning rates of `loop.optimizer` for its step only."""
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
            self._restore_rates()  # where the step failed

    # Learning rates are scaled by the optimizer's own hooks, because a scheduler mostly steps right
    # after it, in the same callback point, and many schedulers compute the next learning rate from
    # the current one. Registering the hooks takes longer than running them, so they stay registered
    # from step to step.

    def _hook(self, optimizer: Optimizer) -> None:
        self._unhook()
        self._hooked = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._scale_rates),
            optimizer.register_step_post_hook(self._restore_rates),
        ]

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._hooked = None

    def _scale_rates(self, optimizer: Optimizer, *_: object) -> None:
        if self._factor != 1.0:  # else this component is disabled
            for group in optimizer.param_groups:
                self._full_rates.append((group, group["lr"]))
                group["lr"] = group["lr"] * self._factor

    def _restore_rates(self, *_: object) -> None:
        for group, rate in self._full_rates:
            group["lr"] = rate  # the same object as before, whether a number or a tensor
        self._full_rates.clear()
