"""The metric whose best value decides which checkpoint is kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from ttl_core import Monitor, check_can_be_logged, missing_metric_error
from ttl_core.arguments import user_stacklevel

_COMPONENT = "checkpoint"  # in errors
_USUAL_GAP = 2  # epochs without a value before there is a warning, at least


class BestMetric:
    """The best value of a metric, of which logged values count from the next safe point on.

    Args:
        metric: the full name of the metric; None for none.
        mode: whether less ("min") or more ("max") of it is better; by default less.

    Raises:
        ArgumentError: an argument has an unusable value.
    """

    def __init__(self, metric: str | None, mode: Literal["min", "max"] | None) -> None:
        self._metric = metric
        # without a metric it only hands on the best value of a run that had one
        self._monitor = Monitor("" if metric is None else metric, mode, argument="best")
        self._logged: Any = None  # since the last safe point

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less ("min") or more ("max") of it is better."""
        return self._monitor.mode

    @property
    def setting(self) -> dict[str, Any]:
        """What decides which value is the best one: "monitor" and "mode"."""
        setting = self._monitor.setting
        return {**setting, "monitor": None} if self._metric is None else setting

    @property
    def best(self) -> float:
        """The best value so far; infinity of the sign that is worst before the first."""
        return self._monitor.best

    @best.setter
    def best(self, value: float) -> None:
        self._monitor.best = value

    def log(self, metrics: Mapping[str, Any], epoch_num: int) -> bool:
        """Keep the value of the metric, if it is among others, and return whether it is."""
        if self._metric is None or self._metric not in metrics:
            return False
        self._logged = metrics[self._metric]
        self._monitor.logged_epochs.add(epoch_num)
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

    def check_valid_data(self, valid_data: Any) -> None:
        """Refuse a metric of validation that the validation data of a run cannot have.

        Args:
            valid_data: those of the loop.

        Raises:
            ArgumentError: there are none, or several named sets and it is of none of them.
        """
        if self._metric is not None:
            check_can_be_logged(_COMPONENT, self._metric, valid_data)

    def check_logged(self, metrics: Mapping[str, Any], n_epochs: int) -> None:
        """Check that the metric was logged by the end of an epoch; warn if it has stopped coming.

        Args:
            metrics: all that was logged at epoch level, in this epoch or before.
            n_epochs: how many epochs have ended.

        Raises:
            RunError: it was never logged.
        """
        if self._metric is None:
            return
        if self._metric not in metrics:
            raise missing_metric_error(_COMPONENT, self._metric, metrics)
        n_missing = self._monitor.logged_epochs.n_missing(n_epochs, usual=_USUAL_GAP)
        if n_missing:
            warnings.warn(
                f"'checkpoint' monitors {self._metric!r}, which was logged before, but not in the "
                f"last {n_missing} epochs, so no new checkpoint can be the best one. Check what "
                "logs it; ignore this warning if it is meant to be rare",
                UserWarning,
                stacklevel=user_stacklevel(),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, what it is of, and when the metric was logged."""
        return {**self._monitor.state_dict(), **self.setting}

    def load_state_dict(
        self, state: Mapping[str, Any], settings: Literal["saved", "new"] | None = None
    ) -> None:
        """Continue from the best value of a run.

        Args:
            state: what `state_dict` returned; earlier versions returned only "best".
            settings: which metric to use where the saved one is another, or has another mode.

        Raises:
            StateError: it is, and there is no choice.
        """
        if self._metric is None:  # there is nothing to compare
            state = {**state, "monitor": None}
        resumed = self._monitor.resumed(state, _COMPONENT, settings)
        if resumed is not None:
            self._monitor = resumed
            self._metric = self._metric and resumed.metric
