"""Devices that arguments name."""

from __future__ import annotations

from typing import Any

import torch

from ttl_core.arguments import describe
from ttl_core.errors import ArgumentError


def find_device(name: str, value: Any) -> torch.device:
    """Return the device of torch that an argument names.

    Args:
        name: the argument's name, for the error.
        value: what was given for it: a torch.device or its name, or "auto" for an accelerator if
            there is one, else the CPU.

    Raises:
        ArgumentError: torch knows no such device.

    Example:
        >>> from ttl_core import find_device
        >>> find_device("device", "cuda:0")
        device(type='cuda', index=0)
    """
    if isinstance(value, str) and value == "auto":
        is_there = torch.accelerator.is_available()  # asked first: else torch 2.6 raises
        value = torch.accelerator.current_accelerator() if is_there else "cpu"
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"{name} is {describe(value)}, but has to be a device of torch, as 'cuda', 'cuda:0', "
            f"'mps' or 'cpu'. Write {name}='auto' for an accelerator if there is one, else the CPU"
        ) from error
