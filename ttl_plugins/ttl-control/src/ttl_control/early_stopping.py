"""The component `early-stopping`."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import LoopComponent, RunError, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class EarlyStopping(LoopComponent):
    """Stop training when a metric no longer improves, or has reached a threshold.

    Each value logged at epoch level counts once, those of validations in mid-epoch too. The
    decision is taken at the safe point that follows, after whoever saves there; a validation that
    belongs to the epoch comes first. NaN is no improvement. Each train() starts afresh.

    Args:
        monitor: the full name of the metric, with its phase.
        mode: whether less ("min") or more ("max") is better.
        patience: after how many values in a row without an improvement to stop.
        min_delta: by how much a value has to be better than the best so far to be an improvement.
        threshold: a value that is good enough to stop at once; None for none.

    Attributes:
        best: the best value of this train(), a number.
        n_bad: how many values in a row were no improvement.
        reason: why it stopped; None if it did not.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> class Worsen(LoopComponent):
        ...     def on_epoch_end(self, loop):
        ...         loop.log({"loss": 1.0 + loop.epoch_num}, level="epoch")
        >>> stopping = EarlyStopping("valid/loss", patience=2)
        >>> loop = TrainTestLoop(torch.nn.Identity(), [Worsen(), stopping], [0], [0])
        >>> loop.train(n_epochs=10)
        >>> loop.epoch_num, stopping.reason
        (3, 'valid/loss was not below its best, 1, in 2 values; the newest is 3')
    """

    def __init__(
        self,
        monitor: str = "valid/loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        threshold: float | None = None,
    ) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor is {monitor!r}, no name of a metric such as 'valid/loss'")
        if mode not in ("min", "max"):
            raise ValueError(f"mode is {mode!r}, neither 'min' nor 'max'")
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience is {patience!r}, no whole number from 1")
        if not min_delta >= 0:
            raise ValueError(f"min_delta is {min_delta!r}, but has to be at least 0")
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.threshold = threshold
        self._sign = 1.0 if mode == "min" else -1.0  # with it, less is better
        self._value_before: Any = None
        self._begin()

    def _begin(self) -> None:
        self.best = self._sign * math.inf
        self.n_bad = 0
        self.reason: str | None = None
        self._uncounted: list[Any] = []

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Start afresh."""
        self._begin()
        self._value_before = loop.metrics.get(self.monitor)

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Stop a run that goes on from a state in which it was decided to stop."""
        if self.reason and loop.is_training:
            loop.stop()

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Keep each value as it is: to read it would wait for the device."""
        if level == "epoch" and self.monitor in metrics:
            self._uncounted.append(metrics[self.monitor])

    @hookimpl(trylast=True)  # stop() skips the rest of the point: savers come first
    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Count new values and stop if it is time to.

        Raises:
            RunError: the metric was not logged in a whole epoch.
        """
        if self._uncounted:
            self._count()
        if not loop.is_training:
            if loop.epoch_desc == "train" and loop.valid_data is not None:
                return  # the epoch's validation comes first
            if loop.metrics.get(self.monitor) is self._value_before:
                self._explain_absence(loop)
            self._value_before = _SEEN
        if self.reason:
            _log.info("early-stopping: %s", self.reason)
            loop.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return what has been counted so far, as plain Python values."""
        self._count()
        return {"best": self.best, "n_bad": self.n_bad, "reason": self.reason}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count on from a state.

        Args:
            state: what `state_dict` returned.
        """
        self.best, self.n_bad, self.reason = state["best"], state["n_bad"], state["reason"]
        self._uncounted.clear()
        self._value_before = _SEEN

    def _count(self) -> None:
        values, self._uncounted = self._uncounted, []
        for value in values:
            self._count_one(self._number(value))

    def _count_one(self, value: float) -> None:
        sign, than = self._sign, "below" if self.mode == "min" else "above"
        if sign * value < sign * self.best - self.min_delta:
            self.best, self.n_bad = value, 0
        else:
            self.n_bad += 1
        if self.threshold is not None and sign * value <= sign * self.threshold:
            self.reason = f"{self.monitor} reached {value:.6g}, the threshold is {self.threshold}"
        elif self.n_bad >= self.patience:
            by = f" by more than {self.min_delta}" if self.min_delta else ""
            self.reason = (
                f"{self.monitor} was not {than} its best, {self.best:.6g},{by} in {self.n_bad} "
                f"values; the newest is {value:.6g}"
            )

    def _number(self, value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # torch raises RuntimeError for many numbers
            raise RunError(
                f"early-stopping monitors {self.monitor!r}, which is no single number: {value!r}"
            ) from None

    def _explain_absence(self, loop: TrainTestLoop) -> None:
        near = difflib.get_close_matches(self.monitor, loop.metrics, n=1)
        raise RunError(
            f"early-stopping monitors {self.monitor!r}, which nobody has logged at epoch level in "
            f"a whole epoch. {f'Did you mean {near[0]!r}? ' if near else ''}Logged were: "
            f"{', '.join(loop.metrics) or 'none. The component metrics logs the mean loss'}"
        )


_SEEN = object()
"""In place of the value before: the metric has appeared."""
