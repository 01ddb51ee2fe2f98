"""The metric whose best value decides which checkpoint is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ttl_core import Monitor, missing_metric_error

_COMPONENT = "checkpoint"  # in errors


class BestMetric:
    """The best value of a metric, of which logged values count from the next safe point on.

    Args:
        metric: the full name of the metric; None for none.
        mode: whether less ("min") or more ("max") of it is better.

    Raises:
        ArgumentError: an argument has an unusable value.
    """

    def __init__(self, metric: str | None, mode: Literal["min", "max"]) -> None:
        self._metric = metric
        # without a metric it only hands on the best value of a run that had one
        self._monitor = Monitor("" if metric is None else metric, mode, argument="best")
        self._logged: Any = None  # since the last safe point

    @property
    def best(self) -> float:
        """The best value so far; infinity of the sign that is worst before the first."""
        return self._monitor.best

    @best.setter
    def best(self, value: float) -> None:
        self._monitor.best = value

    def log(self, metrics: Mapping[str, Any]) -> bool:
        """Keep the value of the metric, if it is among others, and return whether it is."""
        if self._metric is None or self._metric not in metrics:
            return False
        self._logged = metrics[self._metric]
        return True

    def forget_logged(self) -> None:
        """Drop what was logged since the last safe point."""
        self._logged = None

    def improvement(self, *, is_counting: bool = True) -> float | None:
        """Return what was logged since the last safe point, if it is the best value so far.

        Args:
            is_counting: whether it counts; else it is dropped.

        Raises:
            RunError: it is no single number.
        """
        logged, self._logged = self._logged, None
        if logged is None or not is_counting:
            return None
        value = self._monitor.to_number(logged, _COMPONENT)
        return value if self._monitor.update(value) else None

    def check_logged(self, metrics: Mapping[str, Any]) -> None:
        """Check that the metric was logged in an epoch that has ended.

        Args:
            metrics: all that was logged at epoch level.

        Raises:
            RunError: it was not.
        """
        if self._metric is not None and self._metric not in metrics:
            raise missing_metric_error(_COMPONENT, self._metric, metrics)
