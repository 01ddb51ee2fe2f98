"""Copies of a model that hold its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from ttl_core import distributed_like

T = TypeVar("T")


def copied(model: torch.nn.Module, make: Callable[[torch.nn.Module], T]) -> T:
    """Return a copy of a model, of modules without a forward pass where it refuses to be copied.

    Args:
        model: the model. One that is distributed over processes refuses.
        make: what copies it, as copy.deepcopy.
    """
    try:
        return make(model)
    except (AssertionError, NotImplementedError):
        return make(_tensors_of(model))


def state_like(state: Mapping[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """Return a state of a model whose tensors are distributed over processes as those of that.

    Args:
        state: the state.
        model: the model.
    """
    own = model.state_dict()
    return {
        name: distributed_like(value, own[name]) if _is_tensor(value, own.get(name)) else value
        for name, value in state.items()
    }


def _is_tensor(*values: Any) -> bool:
    return all(isinstance(value, torch.Tensor) for value in values)


def _tensors_of(model: torch.nn.Module) -> torch.nn.Module:
    """Return modules that have the tensors of a model under their names, and nothing else."""
    saved = model.state_dict(keep_vars=True).keys()
    made: dict[str, torch.nn.Module] = {}
    shared: dict[int, torch.nn.Parameter] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        made[path] = holder = torch.nn.Module()
        for name, parameter in module.named_parameters(recurse=False):
            # without its gradient; the same one again where it has several names
            key = id(parameter)
            if key not in shared:
                shared[key] = torch.nn.Parameter(parameter.detach(), parameter.requires_grad)
            holder.register_parameter(name, shared[key])
        for name, buffer in module.named_buffers(recurse=False):
            is_saved = (f"{path}.{name}" if path else name) in saved
            holder.register_buffer(name, buffer, persistent=is_saved)
        if path:
            parent, _, name = path.rpartition(".")
            made[parent].add_module(name, holder)
    return made[""]
