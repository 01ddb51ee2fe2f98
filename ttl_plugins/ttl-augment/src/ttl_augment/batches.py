"""Batches of inputs and targets: reading the parts, and replacing them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ttl_core import RunError, split_batch
from ttl_core.arguments import describe


def parts(batch: Any, find_name: Callable[[], str]) -> tuple[Any, Any]:
    """Return the inputs and the targets of a batch, where `split_batch` finds both.

    Args:
        batch: the batch.
        find_name: returns the name of the component, for the error.

    Raises:
        RunError: it has none.

    Example:
        >>> parts({"inputs": 1, "targets": 2}, lambda: "mixup")
        (1, 2)
    """
    inputs, targets = split_batch(batch)
    if targets is None:
        raise RunError(
            f"{find_name()!r} found no inputs and targets in a batch, {describe(batch)}: a batch "
            "has to be a pair, or to have 'inputs' and 'targets', as a mapping, named tuple or "
            "dataclass"
        )
    return inputs, targets


def with_parts(batch: Any, inputs: Any, targets: Any) -> Any:
    """Return a batch of the same type with other inputs and targets.

    Args:
        batch: the batch, which stays as it is.
        inputs: the inputs.
        targets: the targets.
    """
    if type(batch) in (list, tuple):  # as most are
        return type(batch)((inputs, targets))
    if isinstance(batch, Mapping):
        changed: Any = dict(batch) if type(batch) is dict else copy.copy(batch)
        changed["inputs"], changed["targets"] = inputs, targets
        return changed
    new = {"inputs": inputs, "targets": targets}
    if hasattr(batch, "_fields"):
        names = new if hasattr(batch, "inputs") else batch._fields
        return batch._replace(**dict(zip(names, new.values(), strict=True)))
    if not hasattr(batch, "inputs"):
        return type(batch)(new.values())
    if dataclasses.is_dataclass(batch):
        return dataclasses.replace(batch, **new)  # type: ignore[type-var]
    changed = copy.copy(batch)
    changed.inputs, changed.targets = inputs, targets
    return changed


def soft(targets: torch.Tensor, n_classes: int | None, dtype: torch.dtype) -> torch.Tensor:
    """Return targets as shares of classes; those that are no whole numbers are shares already.

    Args:
        targets: classes by number, or numbers that can be mixed.
        n_classes: the number of classes.
        dtype: the type of the shares.
    """
    if targets.is_floating_point() or n_classes is None:
        return targets
    # not one_hot, which reads whether all classes are in range, and waits for the device
    shares = torch.zeros(*targets.shape, n_classes, dtype=dtype, device=targets.device)
    return shares.scatter_(-1, targets.unsqueeze(-1), 1.0)
