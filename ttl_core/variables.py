"""The loop variables, and what is derived from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop


def optimizer_parameters(loop: TrainTestLoop) -> Iterator[torch.Tensor]:
    """Yield the parameters that the optimizers of a loop update, each once.

    Args:
        loop: the loop; `loop.optimizers` have to be set, or `loop.optimizer`.
    """
    seen: set[int] = set()
    for optimizer in loop.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter
