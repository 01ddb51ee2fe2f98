"""Histograms of weights and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

_BINS = 64


@dataclass
class Histogram:
    """The values of a tensor, counted. Its attributes are those that TensorBoard has."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]
    bucket_counts: list[float]


def histograms_of(model: torch.nn.Module) -> Iterator[tuple[str, Histogram]]:
    """Yield the histograms of the weights and gradients of a model, by name.

    Args:
        model: the model.
    """
    for name, parameter in model.named_parameters():
        for kind, tensor in (("weights", parameter), ("gradients", parameter.grad)):
            histogram = None if tensor is None else _histogram(tensor.detach())
            if histogram is not None:
                yield f"{kind}/{name}", histogram


def _histogram(tensor: torch.Tensor) -> Histogram | None:
    """Return the histogram of the finite values of a tensor; None if it has none."""
    values = tensor.coalesce().values() if tensor.is_sparse else tensor
    values = (torch.view_as_real(values) if values.is_complex() else values).flatten().float()
    values = values[values.isfinite()]  # counted where they are: only the counts are copied
    if not len(values):
        return None
    low, high = (value.item() for value in values.aminmax())
    first, last = (low - 0.5, high + 0.5) if low == high else (low, high)
    return Histogram(
        min=low,
        max=high,
        num=len(values),
        sum=values.sum(dtype=torch.float64).item(),
        sum_squares=values.square().sum(dtype=torch.float64).item(),
        bucket_limits=torch.linspace(first, last, _BINS + 1, dtype=torch.float64)[1:].tolist(),
        bucket_counts=torch.histc(values, _BINS, first, last).tolist(),
    )
