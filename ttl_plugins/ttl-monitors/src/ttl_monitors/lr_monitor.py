"""The component `lr-monitor`."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import whole_number
from ttl_monitors.step_hooks import BeforeEachStep

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop


class LrMonitor(LoopComponent):
    """A monitor of learning rates, as the optimizers use them in the step.

    They are logged at batch level: as "lr" where there is one optimizer with one parameter group,
    else as "lr/<optimizer>/<group>", by their numbers from 0. A group with a "name" has that.

    Args:
        every: log them at each so many steps.

    Raises:
        ArgumentError: `every` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class Print(LoopComponent):
        ...     def on_log(self, loop, metrics, level):
        ...         if "train/lr" in metrics:
        ...             print(loop.global_step, round(metrics["train/lr"], 4))
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), LrMonitor(), Print()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        0 0.1
        1 0.1
        2 0.01
    """

    def __init__(self, *, every: int = 1) -> None:
        self.every = whole_number("every", every, at_least=1)

    # innermost: other components have registered their hooks
    @hookimpl(wrapper=True, trylast=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Log the learning rates of the step."""
        if loop.global_step % self.every:
            return (yield)
        used: dict[Optimizer, list[Any]] = {}

        def read(optimizer: Optimizer) -> None:
            used[optimizer] = [_fixed(group["lr"]) for group in optimizer.param_groups]

        optimizers = loop.optimizers
        with BeforeEachStep(optimizers, read):
            result = yield
        is_single = len(optimizers) == 1 and len(optimizers[0].param_groups) == 1
        named = {
            "lr" if is_single else f"lr/{i}/{optimizer.param_groups[j].get('name', j)}": rate
            for i, optimizer in enumerate(optimizers)
            for j, rate in enumerate(used.get(optimizer, ()))
        }
        if named:
            loop.log(named)
        return result


def _fixed(rate: Any) -> Any:
    """Return a learning rate that nothing writes to; it may be a tensor that schedulers change."""
    return rate.clone() if isinstance(rate, torch.Tensor) else rate
