"""The component `lr-warmup`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from torch.optim import Optimizer

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

    @hookimpl(wrapper=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Scale the learning rates of `loop.optimizer` for just its step."""
        factor = (loop.global_step + 1) / self.n_steps
        if factor >= 1:
            return (yield)
        with _scaled_steps(loop.optimizer, factor):
            return (yield)


@contextmanager
def _scaled_steps(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Let the optimizer see scaled learning rates whenever it steps.

    They are scaled by the optimizer's own hooks, because a scheduler mostly steps right after it,
    in the same callback point: many compute the next learning rate from the one that they find.
    The values put back are the very objects that were there, be they numbers or tensors.
    """
    full: list[tuple[dict[str, Any], Any]] = []

    def scale(*_: object) -> None:
        for group in optimizer.param_groups:
            full.append((group, group["lr"]))
            group["lr"] = group["lr"] * factor

    def put_back(*_: object) -> None:
        for group, lr in full:
            group["lr"] = lr
        full.clear()

    handles = [
        optimizer.register_step_pre_hook(scale),
        optimizer.register_step_post_hook(put_back),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        put_back()  # where the step failed
