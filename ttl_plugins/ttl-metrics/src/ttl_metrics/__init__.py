"""Epoch metrics for ttl: mean losses and torchmetrics."""

from ttl_metrics.metrics import Metrics

__all__ = ["Metrics"]
