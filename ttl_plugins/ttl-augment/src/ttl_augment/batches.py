"""Batches of inputs and targets: reading the parts, and replacing them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ttl_core import RunError
from ttl_core.arguments import describe


def parts(batch: Any, find_name: Callable[[], str]) -> tuple[Any, Any]:
    """Return the inputs and the targets of a pair, or of a mapping or named tuple that names them.

    Args:
        batch: the batch.
        find_name: returns the name of the component, for the error.

    Raises:
        RunError: it is something else.

    Example:
        >>> parts({"inputs": 1, "targets": 2}, lambda: "mixup")
        (1, 2)
    """
    if {"inputs", "targets"} <= {*getattr(batch, "_fields", ())}:  # in any order, with others
        return batch.inputs, batch.targets
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping) and {"inputs", "targets"} <= batch.keys():
        return batch["inputs"], batch["targets"]
    raise RunError(
        f"{find_name()!r} found no inputs and targets in a batch, {describe(batch)}: a batch has "
        "to be a pair, or a mapping or named tuple with 'inputs' and 'targets'"
    )


def with_parts(batch: Any, inputs: Any, targets: Any) -> Any:
    """Return a batch of the same type with other inputs and targets.

    Args:
        batch: the batch, which stays as it is.
        inputs: the inputs.
        targets: the targets.
    """
    if isinstance(batch, Mapping):
        changed: Any = dict(batch) if type(batch) is dict else copy.copy(batch)
        changed["inputs"], changed["targets"] = inputs, targets
        return changed
    fields = getattr(batch, "_fields", None)
    if fields is not None:
        named = {"inputs", "targets"} <= {*fields}
        names = ("inputs", "targets") if named else fields
        return batch._replace(**dict(zip(names, (inputs, targets), strict=True)))
    return type(batch)((inputs, targets))


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
