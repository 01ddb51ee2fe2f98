"""Sums over the batches of an epoch, which no precision of a model may spoil."""

from __future__ import annotations

from typing import Any

import torch


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which to sum numbers on a device: double precision where it has that.

    In half precision a sum is soon too large for the next number to count, or for its range.

    Args:
        device: the device.

    Example:
        >>> from ttl_core import sum_dtype
        >>> sum_dtype(torch.device("cpu"))
        torch.float64
    """
    return torch.float32 if device.type == "mps" else torch.float64


def add_weighted(total: Any, n: Any, mean: torch.Tensor, weight: Any) -> tuple[Any, Any]:
    """Add the mean of a batch, times its weight, to a sum; and the weight to the sum of weights.

    It waits for no device. A batch of weight 0 adds nothing, though its mean is NaN.

    Args:
        total: the sum so far, 0.0 at first.
        n: the sum of the weights so far, 0 at first.
        mean: the mean of the batch, a tensor of one element in any precision.
        weight: its weight, as `loop.batch_size`: a number, or a tensor of one element.

    Returns:
        Both sums. The first one divided by the second is the mean of all.

    Example:
        >>> from ttl_core import add_weighted
        >>> total, n = 0.0, 0
        >>> for loss, size in [(1.0, 64), (4.0, 32)]:
        ...     total, n = add_weighted(total, n, torch.tensor(loss, dtype=torch.float16), size)
        >>> (total / n).item()
        2.0
    """
    dtype = sum_dtype(mean.device)
    if isinstance(weight, torch.Tensor):
        weight = weight.to(dtype)
        return total + torch.where(weight == 0, 0, mean.to(dtype) * weight), n + weight
    if weight == 0:
        return total, n
    return total + mean.to(dtype) * weight, n + weight
