"""The component `early-stopping`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import (
    LoopComponent,
    Monitor,
    check_can_be_logged,
    hookimpl,
    missing_metric_error,
)
from ttl_core.arguments import number, one_of, user_stacklevel, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class EarlyStopping(LoopComponent):
    """The end of training when a metric no longer improves, or has reached a threshold.

    Each value logged at epoch level counts once, also those of validations in mid-epoch. The
    decision is taken at the safe point that follows, after components that save there; a
    validation that belongs to the epoch comes first. A value that is not finite is no improvement.
    Each train() counts from the start. A value of an earlier epoch does not count again; where no
    new one has come for more than `patience` epochs, and for longer than ever before, it warns.

    Args:
        monitor: the full name of the metric, with its phase.
        mode: whether a lower ("min") or a higher ("max") value is better; by default "min". Of a
            metric whose name tells the opposite, such as "valid/accuracy", it has to be given.
        patience: the number of values in a row without an improvement after which to stop.
        min_delta: by how much a value has to be better than the best so far to be an improvement.
        threshold: a value that is good enough to stop at once; None for none.
        settings: what a resumed run does if its metric or mode is another one than that of the
            state, whose best value is no measure for it: "saved" continues with those, "new" counts
            from the start; by default that is an error. The other arguments may differ.

    Attributes:
        best: the best value of this train(), a number.
        n_bad: how many values in a row were no improvement.
        reason: why it stopped; None if it did not.

    Raises:
        ArgumentError: an argument has an unusable value.
        StateError: a resumed run has another metric or mode, and `settings` does not choose.

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
        mode: Literal["min", "max"] | None = None,
        patience: int = 3,
        min_delta: float = 0.0,
        threshold: float | None = None,
        settings: Literal["saved", "new"] | None = None,
    ) -> None:
        self._monitor = Monitor(monitor, mode, min_delta=min_delta)
        self.patience = whole_number("patience", patience, at_least=1)
        self.min_delta = min_delta
        self.threshold = None if threshold is None else number("threshold", threshold)
        if settings is not None:
            one_of("settings", settings, ("saved", "new"))
        self.settings = settings
        self._was_logged: bool | None = None  # None: unknown, as on_train_begin was not called
        self._reset()

    def _reset(self) -> None:
        """Drop what was counted."""
        self._monitor.reset()
        self.n_bad = 0
        self.reason: str | None = None
        self._uncounted: list[Any] = []

    @property
    def monitor(self) -> str:
        """The full name of the metric."""
        return self._monitor.metric

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether a lower or a higher value is better."""
        return self._monitor.mode

    @property
    def best(self) -> float:
        """The best value of this train(); infinity of the sign that is worst before the first."""
        return self._monitor.best

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Count from the start.

        Raises:
            ArgumentError: the validation data cannot have the metric.
        """
        self._reset()
        self._was_logged = False
        result = yield  # in which components may give the loop its data
        check_can_be_logged("early-stopping", self.monitor, loop.valid_data)
        return result

    @hookimpl(tryfirst=True)  # before other components begin an epoch that is not run
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Stop a run resumed from a state in which the decision to stop was taken."""
        if self.reason and loop.is_training:
            loop.stop(self.reason)

    @hookimpl(tryfirst=True)
    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Do so in mid-epoch, where a state is loaded after on_epoch_begin."""
        if self.reason:
            loop.stop(self.reason)

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Keep each value as it is: reading it would wait for the device."""
        if level == "epoch" and self.monitor in metrics:
            self._uncounted.append(metrics[self.monitor])
            self._was_logged = True
            self._monitor.logged_epochs.add(loop.epoch_num)

    @hookimpl(trylast=True)  # stop() skips the rest of the point: components that save come first
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
            if self._was_logged is None:
                self._was_logged = self.monitor in loop.metrics
            if not self._was_logged:
                raise missing_metric_error("early-stopping", self.monitor, loop.metrics)
            self._warn_of_missing(loop)
        if self.reason:
            _log.info("early-stopping: %s", self.reason)
            loop.stop(self.reason)

    def state_dict(self) -> dict[str, Any]:
        """Return what has been counted so far, as plain Python values."""
        self._count()
        return {**self._monitor.state_dict(), "n_bad": self.n_bad, "reason": self.reason}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume counting.

        Args:
            state: what `state_dict` returned; that of earlier versions has no metric and mode.

        Raises:
            StateError: it is of another metric or mode, and `settings` does not choose one.
        """
        resumed = self._monitor.resumed(state, "early-stopping", self.settings)
        if resumed is None:
            return
        self._monitor = resumed
        self.n_bad, self.reason = state["n_bad"], state["reason"]
        self._uncounted.clear()
        self._was_logged = True

    def _warn_of_missing(self, loop: TrainTestLoop) -> None:
        """Warn at the end of an epoch if values have stopped coming."""
        n_epochs = loop.epoch_num + (loop.valid_data is None)  # counted once it was validated
        n_missing = self._monitor.logged_epochs.n_missing(n_epochs, usual=self.patience)
        if n_missing:
            warnings.warn(
                f"'early-stopping' monitors {self.monitor!r}, which was logged before, but not in "
                f"the last {n_missing} epochs. Its old value does not count again, so it does not "
                "stop training. Check what logs it; ignore this warning if it is meant to be rare",
                UserWarning,
                stacklevel=user_stacklevel(),
            )

    def _count(self) -> None:
        values, self._uncounted = self._uncounted, []
        for value in values:
            self._count_one(self._monitor.to_number(value, "early-stopping"))

    def _count_one(self, value: float) -> None:
        self.n_bad = 0 if self._monitor.update(value) else self.n_bad + 1
        if self.threshold is not None and self._monitor.reaches(value, self.threshold):
            self.reason = f"{self.monitor} reached {value:.6g}, the threshold is {self.threshold}"
        elif self.n_bad >= self.patience:
            than = "below" if self.mode == "min" else "above"
            by = f" by more than {self.min_delta}" if self.min_delta else ""
            values = f"{self.n_bad} value{'' if self.n_bad == 1 else 's'}"
            self.reason = (
                f"{self.monitor} was not {than} its best, {self.best:.6g},{by} in {values}; "
                f"the newest is {value:.6g}"
            )
