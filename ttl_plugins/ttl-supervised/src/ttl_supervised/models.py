"""How models are compiled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from ttl_core.arguments import user_stacklevel


def compile_in_place(model: torch.nn.Module, options: Mapping[str, Any]) -> None:
    """Compile a model, so that the names of its weights stay.

    Args:
        model: the model.
        options: the options of torch.compile.
    """
    if type(model).__module__.startswith("torch.nn.modules."):
        warnings.warn(
            f"torch does not compile a bare torch.nn.{type(model).__name__} in place. Put it into "
            "a module of your own, whose forward() calls it",
            UserWarning,
            stacklevel=user_stacklevel(),
        )
    model.compile(**options)
