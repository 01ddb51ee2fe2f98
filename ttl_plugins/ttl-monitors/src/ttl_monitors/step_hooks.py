"""Looking at optimizers at the moment at which they step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer


@contextlib.contextmanager
def before_each_step(
    optimizers: Iterable[Optimizer], look: Callable[[Optimizer], None]
) -> Iterator[None]:
    """Call a function with each optimizer that steps in a with block, right before it does.

    A hook of the optimizer comes after all that components do at the callback point: clip
    gradients, at any place in the list, or scale learning rates in a hook that is there already.
    It is not called where the step is skipped.

    Args:
        optimizers: the optimizers.
        look: the function.
    """
    handles = [
        optimizer.register_step_pre_hook(lambda optimizer, *_: look(optimizer))
        for optimizer in optimizers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
