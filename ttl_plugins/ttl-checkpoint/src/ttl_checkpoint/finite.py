"""Whether the model in a state is finite, so that a run can train on with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch


def is_finite(model: Any, buffers: Collection[str]) -> bool:
    """Return whether no tensor of a model holds NaN, and no parameter infinity.

    Infinity is usual in buffers, as in the mask of an attention.

    Args:
        model: the state of the model, by name.
        buffers: the names of its buffers.
    """
    return all(
        _is_finite(tensor, may_be_infinite=name in buffers)
        for name, value in (model.items() if isinstance(model, Mapping) else [("", model)])
        for tensor in _tensors(value)
    )


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


@torch.no_grad()
def _is_finite(tensor: torch.Tensor, *, may_be_infinite: bool) -> bool:
    try:
        values = _values(tensor.detach())
        if values.numel() == 0 or not values.is_floating_point():
            return True
        low, high = torch.aminmax(values)  # NaN if one is NaN; needs no memory, unlike isfinite()
        ends = torch.stack([low, high])
        return not bool((ends.isnan() if may_be_infinite else ~ends.isfinite()).any())
    except (RuntimeError, ValueError, TypeError):
        return True  # a type without this operation: meta, quantised, those of other libraries


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
