"""What one epoch gathers: the mean loss and metrics of a phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection

from ttl_metrics.held_metrics import HeldMetrics

EpochKey = tuple[int, str | None]
"""What tells the epochs of a phase apart: the loop's `epoch_num` and `data_name`."""


class EpochValues:
    """What the current epoch of one phase has gathered.

    Args:
        metrics: the metrics of the phase. They belong to this object from then on.

    Attributes:
        epoch: which epoch is under way; None if there is none.
    """

    epoch: EpochKey | None

    def __init__(self, metrics: MetricCollection) -> None:
        self.metrics = metrics
        self._loss = _MeanLoss()
        self._device: torch.device | None = None
        self.begin(None)
        self._held = HeldMetrics(metrics)

    def begin(self, epoch: EpochKey | None) -> None:
        """Drop what was gathered, and start another epoch.

        Args:
            epoch: which one; None for none.
        """
        self.epoch = epoch
        self._loss.reset()
        self.metrics.reset()
        self._has_loss = self._has_metrics = False

    def move_to_device_of(self, *values: Any) -> None:
        """Move to the device of the first tensor among some values, if there is one."""
        device = next((v.device for v in values if isinstance(v, torch.Tensor)), self._device)
        if device is not None and device != self._device:
            self._loss.set_dtype(sum_dtype(device)).to(device)
            self._held.move(device)
            self._device = device

    def add_loss(self, loss: Any, weight: Any) -> None:
        """Add a batch's mean loss and its weight."""
        self._loss.update(loss, weight)
        self._has_loss = True

    def update_metrics(self, *arguments: Any) -> None:
        """Update the metrics with a batch."""
        self.metrics.update(*arguments)
        self._has_metrics = True

    def finish(self) -> dict[str, Any]:
        """End the epoch, and return the values of what was gathered, by name."""
        self.epoch = None
        values = {"loss": self._loss.compute()} if self._has_loss else {}
        return values | self.metrics.compute() if self._has_metrics else values

    def state_dict(self) -> dict[str, Any]:
        """Return what the epoch under way has gathered, and what metrics keep over epochs.

        A loop takes states in training epochs only, so `data_name` is not part of it.

        Returns:
            The state; empty where there is neither.

        Raises:
            StateError: a metric holds something that could not be loaded.
        """
        attributes = self._held.attributes()
        if self.epoch is None:
            return {"num": None, "attributes": attributes} if attributes else {}
        counts = [metric.update_count for metric in self._all()]  # metrics of a group share states
        return {
            "num": self.epoch[0],
            "has_loss": self._has_loss,
            "has_metrics": self._has_metrics,
            "loss": self._loss.state_dict(),
            "metrics": self.metrics.state_dict(),
            "counts": counts,
            "held": self._held.state_dict(),
            "attributes": attributes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what an epoch had gathered, and what metrics had kept.

        Args:
            state: what `state_dict` returned.
        """
        self.begin(None)
        self._device = None  # the loaded tensors are where they were saved, or on the CPU
        self._held.load(state.get("held", {}), state.get("attributes", {}))  # none in old states
        if state.get("num") is not None:
            self.epoch = (state["num"], None)
            self._has_loss = state["has_loss"]
            self._has_metrics = state["has_metrics"]
            self._loss.load(state["loss"])
            self.metrics.load_state_dict(state["metrics"])
            for metric, count in zip(self._all(), state["counts"], strict=True):
                metric._update_count = count  # not in its state, but compute() warns without it

    def _all(self) -> list[Metric]:
        return [self._loss, *self.metrics.values(copy_state=False)]


class _MeanLoss(Metric):
    """The mean of losses, by weight.

    It is summed in float64, in which sums of millions of float32 losses keep all their digits.
    Devices without float64 sum in float32, and keep apart what each addition rounds off.

    torchmetrics' MeanMetric checks for NaN and copies numbers to the device, which waits for it.
    """

    full_state_update = False
    total: torch.Tensor
    weight: torch.Tensor
    lost_total: torch.Tensor
    lost_weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight", "lost_total", "lost_weight"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx="sum", persistent=True)

    def update(self, loss: Any, weight: Any) -> None:
        if self.total.dtype != torch.float64:
            self._add("total", torch.as_tensor(loss, dtype=self.total.dtype) * weight)
            self._add("weight", weight)
            return
        if isinstance(weight, int) and isinstance(loss, torch.Tensor):
            self.total.add_(loss, alpha=weight)  # converts and multiplies in the same kernel
        else:
            self.total += torch.as_tensor(loss, dtype=torch.float64) * weight
        self.weight += weight

    def compute(self) -> torch.Tensor:
        return (self.total + self.lost_total) / (self.weight + self.lost_weight)

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a state, also one of versions that summed in float32."""
        device = state["total"].device
        self.set_dtype(sum_dtype(device))
        zero = torch.zeros((), device=device)
        state = {"lost_total": zero, "lost_weight": zero, **state}
        self.load_state_dict({key: value.to(self.total.dtype) for key, value in state.items()})

    def _add(self, name: str, value: Any) -> None:
        """Add to a sum, and apart exactly what that rounds off (Knuth's 2Sum)."""
        before: torch.Tensor = getattr(self, name)
        after = before + value
        added = after - before
        lost = getattr(self, f"lost_{name}")
        lost += (before - (after - added)) + (value - added)
        setattr(self, name, after)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type of floating-point numbers in which a device sums losses."""
    return torch.float32 if device.type == "mps" else torch.float64
