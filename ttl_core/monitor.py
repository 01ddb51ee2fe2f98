"""Watching a metric: which value is better, which one is the best, and what if none comes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from ttl_core.arguments import did_you_mean, number, one_of
from ttl_core.errors import ArgumentError, RunError

__all__ = ["Monitor", "missing_metric_error"]


class Monitor:
    """The best value so far of a metric.

    Args:
        metric: the full name of the metric, such as "valid/loss".
        mode: whether a lower ("min") or a higher ("max") value is better.
        min_delta: by how much a value has to be better than the best one to replace it.
        argument: the name under which `metric` was given, for errors.

    Attributes:
        best: the best value so far; infinity of the sign that is worst before the first.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> monitor = Monitor("valid/accuracy", "max")
        >>> [monitor.update(value) for value in (0.5, 0.7, float("nan"), 0.6)]
        [True, True, False, False]
        >>> monitor.best
        0.7
    """

    best: float

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"] = "min",
        *,
        min_delta: float = 0.0,
        argument: str = "monitor",
    ) -> None:
        if not isinstance(metric, str):
            raise ArgumentError(
                f"{argument} is {metric!r}, but has to be the name of a metric, as 'valid/loss'"
            )
        self.metric = metric
        self.mode = one_of("mode", mode, ("min", "max"))
        self.min_delta = number("min_delta", min_delta, at_least=0)
        self.reset()

    def reset(self) -> None:
        """Drop the best value."""
        self.best = math.inf if self.mode == "min" else -math.inf

    def reaches(self, value: float, target: float) -> bool:
        """Return whether a value is as good as another one, or better."""
        return value <= target if self.mode == "min" else value >= target

    def is_better(self, value: float, than: float | None = None) -> bool:
        """Return whether a value is better than the best one; one that is not finite never is.

        Args:
            value: the value.
            than: what to compare it with instead of the best one.
        """
        best = self.best if than is None else than
        sign = 1 if self.mode == "min" else -1
        return math.isfinite(value) and sign * value < sign * best - self.min_delta

    def update(self, value: float) -> bool:
        """Make a value the best one if it is better; return whether it was."""
        if not self.is_better(value):
            return False
        self.best = value
        return True

    def to_number(self, value: Any, component: str) -> float:
        """Return a logged value of the metric as a Python number.

        Args:
            value: what was logged.
            component: the name of the component that monitors it, for the error.

        Raises:
            RunError: it is no single number.
        """
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # torch raises RuntimeError for several
            raise RunError(
                f"{component!r} monitors {self.metric!r}, which is not a single number: {value!r}"
            ) from None


def missing_metric_error(component: str, metric: str, logged: Iterable[str]) -> RunError:
    """Return the error for a metric that was not logged in a whole epoch.

    Args:
        component: the name of the component that needs it.
        metric: the full name of the metric.
        logged: the names that were logged at epoch level.

    Example:
        >>> error = missing_metric_error("early-stopping", "valid/los", ["valid/loss"])
        >>> "Did you mean 'valid/loss'?" in str(error)
        True
    """
    logged = list(logged)
    return RunError(
        f"{component!r} needs the metric {metric!r}, which was not logged at epoch level in a "
        f"whole epoch. {did_you_mean(metric, logged)}Logged were: "
        f"{', '.join(logged) or 'none. The component metrics logs the mean loss'}"
    )
