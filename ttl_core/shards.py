"""Tensors of which each process of a group has a part: the distributed tensors of torch."""

from __future__ import annotations

import sys
from typing import Any

import torch


def is_sharded(value: object) -> bool:
    """Return whether a value is a tensor of which each process has a part.

    Args:
        value: any value.
    """
    # where that was not imported there is none, and importing it takes long
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that this process has: all of it, if it is no distributed one.

    Args:
        tensor: the tensor. What is returned shares its memory; it may be empty.

    Example:
        >>> from ttl_core import local_part
        >>> local_part(torch.ones(2))
        tensor([1., 1.])
    """
    if not is_sharded(tensor):
        return tensor
    part: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor; of a distributed one, all processes that share it have to call this.

    Args:
        tensor: the tensor. What is returned may share its memory.

    Example:
        >>> from ttl_core import whole_tensor
        >>> whole_tensor(torch.ones(2))
        tensor([1., 1.])
    """
    if not is_sharded(tensor):
        return tensor
    whole: torch.Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def distributed_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the device of another one, and distributed over processes as that one.

    A component uses it to load a tensor of its state beside a parameter, as a state that all
    processes have saved together holds whole ones.

    Args:
        tensor: the tensor, which is the same in all processes.
        other: another one of the same shape.

    Example:
        >>> from ttl_core import distributed_like
        >>> distributed_like(torch.ones(2), torch.nn.Parameter(torch.zeros(2)))
        tensor([1., 1.])
    """
    if not is_sharded(other):
        return whole_tensor(tensor) if is_sharded(tensor) else tensor.to(other.device)
    target: Any = other
    value: Any = tensor
    if not is_sharded(tensor):
        from torch.distributed.tensor import DTensor, Replicate

        mesh = target.device_mesh
        here = tensor.to(mesh.device_type)
        value = DTensor.from_local(here, mesh, [Replicate()] * mesh.ndim, run_check=False)
    # nothing is sent for it where each process has all of the tensor
    placed: torch.Tensor = value.redistribute(target.device_mesh, target.placements)
    return placed.to(target.device)
