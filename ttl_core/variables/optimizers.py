"""What the optimizers of a loop update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ttl_core.variables.loop_variables import LoopVariables


def optimizer_parameters(loop: LoopVariables) -> Iterator[torch.Tensor]:
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
