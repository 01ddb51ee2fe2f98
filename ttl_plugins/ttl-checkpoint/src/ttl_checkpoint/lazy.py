"""Modules whose parameters get their shapes from the first batch, as torch.nn.LazyLinear."""

from __future__ import annotations

import itertools

import torch
from torch.nn.parameter import is_lazy

from ttl_core import StateError


def uninitialized_names(model: torch.nn.Module) -> list[str]:
    """Return the names of the parameters and buffers of a model that have no shape yet."""
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    return [name for name, value in named if is_lazy(value)]


def check_initialized(model: torch.nn.Module) -> None:
    """Check that a model can be saved, as all of it has shapes.

    Raises:
        StateError: some parameters have none.
    """
    names = uninitialized_names(model)
    if names:
        raise StateError(
            f"the model cannot be saved: {', '.join(names[:5])} of a lazy module (such as "
            "LazyLinear) got no shape, as no batch has passed through it. Let one pass before "
            "train(), or remove the module"
        )
