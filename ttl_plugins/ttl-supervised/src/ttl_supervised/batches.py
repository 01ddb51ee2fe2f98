"""Batches of supervised learning: where their inputs and targets are, and on which device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Batch = tuple[Any, Any]
"""Inputs and targets; the targets are None where a batch has none."""


def split_batch(batch: Any) -> Batch:
    """Return the inputs and the targets of a pair, or of a mapping that names them.

    Args:
        batch: what the data yielded.

    Returns:
        Inputs and targets. A batch of any other type is inputs alone, and its targets are None.

    Example:
        >>> split_batch({"inputs": 1, "targets": 2})
        (1, 2)
        >>> split_batch([1])
        (1, None)
    """
    if isinstance(batch, Mapping) and "inputs" in batch:
        return batch["inputs"], batch.get("targets")
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, list | tuple) and len(batch) == 1:
        return batch[0], None
    return batch, None


def to_device(value: Any, device: torch.device) -> Any:
    """Return a nested structure with its tensors on a device, without waiting for them.

    Args:
        value: tensors, other objects with `to()`, or mappings, lists and tuples of them.
        device: the device.

    Returns:
        The same structure. Values without `to()` are in it as they are.
    """
    if hasattr(value, "to"):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value
