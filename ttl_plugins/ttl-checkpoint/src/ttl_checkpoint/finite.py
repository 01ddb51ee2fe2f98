"""Whether the model in a state is finite, so that a run can train on with it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch


def is_finite(model: Any, buffers: Collection[str]) -> bool:
    """Return whether no tensor of a model holds NaN, and no parameter infinity.

    Infinity is usual in buffers, as in the mask of an attention.

    Args:
        model: the state of the model, by name.
        buffers: the names of its buffers.
    """
    # by device and type, each of which is read in one go, so that little waits for a device
    ends: dict[tuple[bool, torch.device, torch.dtype], list[torch.Tensor]] = {}
    for name, value in model.items() if isinstance(model, Mapping) else [("", model)]:
        for tensor in _tensors(value):
            for end in _ends(tensor):
                key = (name in buffers, end.device, end.dtype)
                ends.setdefault(key, []).append(end)
    for (may_be_infinite, *_), values in ends.items():
        is_wrong = math.isnan if may_be_infinite else _is_not_finite
        if any(map(is_wrong, torch.stack(values).tolist())):
            return False
    return True


def _is_not_finite(number: float) -> bool:
    return not math.isfinite(number)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


@torch.no_grad()
def _ends(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Return the least and the greatest number of a tensor, NaN if one is; none without numbers."""
    try:
        values = _values(tensor.detach())
        if values.numel() == 0 or values.is_meta or not values.is_floating_point():
            return ()
        return torch.aminmax(values)  # which needs no memory, unlike isfinite()
    except (RuntimeError, ValueError, TypeError):
        return ()  # a type without this operation: quantised, those of other libraries


def _values(tensor: torch.Tensor) -> torch.Tensor:
    """Return the numbers that a tensor stores, as real ones."""
    if tensor.layout is torch.sparse_coo:
        tensor = tensor._values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.values()
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    if tensor.is_floating_point() and tensor.element_size() == 1:  # float8 has no aminmax()
        return tensor.float()
    return tensor
