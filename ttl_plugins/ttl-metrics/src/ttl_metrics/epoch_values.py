"""What one epoch gathers: the mean loss and metrics of a phase."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ttl_core import Group, RunError, StateError
from ttl_metrics.mean_loss import MeanLoss

if TYPE_CHECKING:
    from ttl_metrics.phase_metrics import PhaseMetrics

EpochKey = tuple[int, str | None]
"""What tells the epochs of a phase apart: the loop's `epoch_num` and `data_name`."""


class EpochValues:
    """What the current epoch of one phase has gathered.

    Args:
        metrics: the metrics of the phase, if there are any.

    Attributes:
        metrics: the metrics of the phase, if there are any.
        epoch: which epoch is under way; None if there is none.
    """

    epoch: EpochKey | None

    def __init__(self, metrics: PhaseMetrics | None) -> None:
        self.metrics = metrics
        self._loss = MeanLoss()
        self._has_loss = self._has_metrics = False
        self.epoch = None

    def begin(self, epoch: EpochKey | None) -> None:
        """Drop what was gathered, and start another epoch.

        Args:
            epoch: which one; None for none.
        """
        self.epoch = epoch
        self._loss.reset()
        if self.metrics is not None:
            self.metrics.reset()
        self._has_loss = self._has_metrics = False

    def add_loss(self, loss: Any, weight: Any) -> None:
        """Add a batch's mean loss and its weight."""
        self._loss.add(loss, weight)
        self._has_loss = True

    def update_metrics(self, *arguments: Any) -> None:
        """Update the metrics with a batch."""
        assert self.metrics is not None
        self.metrics.update(*arguments)
        self._has_metrics = True

    def finish(self, group: Group) -> dict[str, Any]:
        """End the epoch, and return the values of what was gathered, by name.

        Args:
            group: the processes that have gathered together, all of which have to call this.

        Raises:
            RunError: a metric returned a value with the name of the loss.
        """
        self.epoch = None
        values = {"loss": self._loss.compute(group)} if group.any(self._has_loss) else {}
        if self.metrics is not None and group.any(self._has_metrics):
            with warnings.catch_warnings():
                if not self._has_metrics:  # a process without a batch of its own
                    warnings.filterwarnings("ignore", "The ``compute`` method of metric")
                computed = self.metrics.compute()
            if values.keys() & computed.keys():
                raise RunError(
                    "a metric returned several values by name, of which one is named 'loss', as "
                    "the mean loss is. Give the metric a prefix, as in "
                    "MetricCollection(..., prefix='my-'), or leave the mean loss out: loss=False"
                )
            values |= computed
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return what the epoch under way has gathered, and what metrics keep over epochs.

        A loop takes states in training epochs only, so `data_name` is not part of it.

        Returns:
            The state; empty where there is neither.

        Raises:
            StateError: a metric holds something that could not be loaded.
        """
        metrics = {} if self.metrics is None else self.metrics.state_dict()
        if self.epoch is None:
            attributes = metrics.get("attributes")
            return {"num": None, "attributes": attributes} if attributes else {}
        return {
            "num": self.epoch[0],
            "has_loss": self._has_loss,
            "has_metrics": self._has_metrics,
            "loss": self._loss.state_dict(),
            **metrics,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what an epoch had gathered, and what metrics had kept.

        Args:
            state: what `state_dict` returned.

        Raises:
            StateError: the state is of other metrics.
        """
        self.begin(None)
        if self.metrics is not None:
            self.metrics.load_state_dict(state)
        else:
            check_metrics(state.get("held", ()), ())
        if state.get("num") is not None:
            self.epoch = (state["num"], None)
            self._has_loss = state["has_loss"]
            self._has_metrics = state["has_metrics"]
            self._loss.load_state_dict(state["loss"])


def check_metrics(saved: Collection[str], own: Collection[str]) -> None:
    """Check that all metrics of a state are there to load it into.

    Args:
        saved: the names of the metrics in the state.
        own: the names of those in the script.

    Raises:
        StateError: some are not.
    """
    if missing := set(saved) - set(own):
        raise StateError(
            f"the state holds the metric {min(missing)!r}, but the metrics of this script are: "
            f"{', '.join(own) or 'none'}. Give the metrics that the run had"
        )
