"""The bundle `my-component`."""

from __future__ import annotations

import functools
from typing import Any

import torch
from ttl_core import use


def my_component(*, lr: float = 1e-3, max_norm: float = 1.0) -> list[Any]:
    """Return the components of a classification run, in their order.

    Args:
        lr: the learning rate.
        max_norm: the largest norm of the gradients; greater ones are clipped.

    Returns:
        Specs and names of components, for the list of a loop.

    Example:
        >>> [getattr(item, "plugin", item) for item in my_component(lr=0.1)]
        ['supervised', 'grad-clip', 'metrics']
    """
    optimizer = functools.partial(torch.optim.AdamW, lr=lr)
    return [
        use("supervised", loss_func=torch.nn.CrossEntropyLoss(), optimizer=optimizer),
        use("grad-clip", max_norm=max_norm),
        "metrics",
    ]
