"""The mean of the losses of an epoch, by weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ttl_core import Group, sum_dtype


class MeanLoss:
    """The mean of losses, by weight, in double precision.

    Sums of millions of float32 losses keep all their digits in it. Nothing waits for a device: what
    cannot be read without that is summed there.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Drop all losses."""
        self._total = 0.0
        self._weight: float = 0
        self._total_on_device = _DeviceSum()
        self._weight_on_device = _DeviceSum()

    def add(self, loss: Any, weight: Any) -> None:
        """Add the mean loss of a batch, and its weight.

        Args:
            loss: a number, or a tensor that holds one.
            weight: the same. A batch of weight 0 adds nothing, whatever its loss.
        """
        loss, weight = _readable(loss), _readable(weight)
        if isinstance(weight, torch.Tensor):
            self._total_on_device.add(loss, weight)
            self._weight_on_device.add(1, weight)
            return
        if weight == 0:  # the mean loss of nothing is NaN, and so would be its product with 0
            return
        if isinstance(loss, torch.Tensor):
            self._total_on_device.add(loss, weight)
        else:
            self._total += loss * weight
        self._weight += weight

    def compute(self, group: Group) -> torch.Tensor:
        """Return the mean over all processes.

        Args:
            group: the processes that train together. Where it is one and torch.distributed is in
                use by other means, the processes of that count.
        """
        total: Any = self._total + self._total_on_device.rounded()
        weight: Any = self._weight + self._weight_on_device.rounded()
        is_distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if group.size > 1 or is_distributed:
            device = total.device if isinstance(total, torch.Tensor) else torch.device("cpu")
            together = torch.stack([_double(total, device), _double(weight, device)])
            if group.size > 1:
                together = group.sum(together)
            else:
                torch.distributed.all_reduce(together)
            total, weight = together
        if not isinstance(total, torch.Tensor):
            total = torch.tensor(total, dtype=torch.float64)
        mean: torch.Tensor = total / weight  # NaN where all weights are 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {
            "total": self._total,
            "weight": self._weight,
            "total_on_device": self._total_on_device.state_dict(),
            "weight_on_device": self._weight_on_device.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with sums.

        Args:
            state: what `state_dict` returned; earlier versions had tensors only, at first without
                what additions had rounded off.
        """
        self.reset()
        self._total = _number(state["total"]) + _number(state.get("lost_total", 0))
        self._weight = _number(state["weight"]) + _number(state.get("lost_weight", 0))
        self._total_on_device.load_state_dict(state.get("total_on_device", {}))
        self._weight_on_device.load_state_dict(state.get("weight_on_device", {}))


class _DeviceSum:
    """A sum on a device, from the first tensor on that is added to it; a number 0 before.

    Devices without float64 sum in float32, and keep apart what each addition rounds off.

    Args:
        value: the sum so far.
    """

    def __init__(self, value: Any = 0.0) -> None:
        self._value = value
        self._lost: Any = 0.0

    def add(self, value: Any, weight: Any) -> None:
        """Add a product, of which at least one is a tensor; these are without a graph."""
        device = (value if isinstance(value, torch.Tensor) else weight).device
        if not isinstance(self._value, torch.Tensor) or self._value.device != device:
            self._value, self._lost = _double(self._value, device), _double(self._lost, device)
        if self._value.dtype == torch.float64 and not isinstance(weight, torch.Tensor):
            self._value.add_(value, alpha=weight)  # converts and multiplies in the same kernel
            return
        value = torch.as_tensor(value, dtype=self._value.dtype, device=device) * weight
        if isinstance(weight, torch.Tensor):
            value = torch.where(weight == 0, 0, value)
        # what the addition rounds off, exactly (Knuth's 2Sum)
        after = self._value + value
        added = after - self._value
        self._lost = self._lost + (self._value - (after - added)) + (value - added)
        self._value = after

    def rounded(self) -> Any:
        """Return the sum as one number."""
        return self._value + self._lost

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the sum and what is kept apart; nothing where nothing was added."""
        if not isinstance(self._value, torch.Tensor):
            return {}
        return {"value": self._value.clone(), "lost": self._lost.clone()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue with a sum, which moves to where more is added.

        Args:
            state: what `state_dict` returned.
        """
        if state:
            self._value, self._lost = state["value"].clone(), state["lost"].clone()


def _double(value: Any, device: torch.device) -> torch.Tensor:
    """Return a number on a device, in double precision where the device has that."""
    dtype = sum_dtype(device)
    if isinstance(value, torch.Tensor):
        return value.to(device, dtype)
    return torch.full((), value, dtype=dtype, device=device)  # a copy would wait for the device


def _readable(value: Any) -> Any:
    """Return a number of Python, or a tensor where reading one would wait for its device."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.is_cpu else value.detach()
    return value if isinstance(value, int) else float(value)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
