"""Metrics that components need: whether they can come, whether they came, and since when not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ttl_core.arguments import did_you_mean
from ttl_core.errors import ArgumentError, RunError

__all__ = ["LoggedEpochs", "check_can_be_logged", "missing_metric_error"]


class LoggedEpochs:
    """The epochs in which a metric was logged, by which it is noticed that none comes any more.

    Example:
        >>> epochs = LoggedEpochs()
        >>> epochs.add(0)
        >>> [epochs.n_missing(n_epochs, usual=1) for n_epochs in (1, 2, 3, 4)]
        [0, 0, 2, 0]
    """

    def __init__(self) -> None:
        self._newest: int | None = None  # None: unknown
        self._longest_gap = 0  # the most epochs in a row so far without a value between two values

    def add(self, epoch_num: int) -> None:
        """Record that a value was logged.

        Args:
            epoch_num: the number of the epoch.
        """
        if self._newest is not None:
            self._longest_gap = max(self._longest_gap, epoch_num - self._newest - 1)
        self._newest = epoch_num

    def n_missing(self, n_epochs: int, *, usual: int) -> int:
        """Return for how many epochs no value has come, at the end of each epoch.

        Args:
            n_epochs: how many epochs have ended.
            usual: how many epochs without a value are usual, at least.

        Returns:
            The number, in the first epoch in which that is longer than ever before; else 0.
        """
        if self._newest is None:  # it was logged before the state of an earlier version
            self._newest = n_epochs - 1
        n_missing = n_epochs - 1 - self._newest
        return n_missing if n_missing == max(usual, self._longest_gap) + 1 else 0

    def state_dict(self) -> dict[str, Any]:
        """Return what has been recorded, as plain Python values."""
        return {"newest_epoch": self._newest, "longest_gap": self._longest_gap}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a record.

        Args:
            state: a mapping with what `state_dict` returned, if an earlier version had saved it.
        """
        self._newest = state.get("newest_epoch")
        self._longest_gap = state.get("longest_gap", 0)


def check_can_be_logged(component: str, metric: str, valid_data: Any) -> None:
    """Refuse a metric of validation that the validation data of a run cannot have.

    Args:
        component: the name of the component that needs it.
        metric: the full name of the metric.
        valid_data: those of the loop.

    Raises:
        ArgumentError: there are none, or several named sets and it is of none of them.

    Example:
        >>> check_can_be_logged("early-stopping", "valid/easy/loss", {"easy": [1], "hard": [2]})
    """
    if not metric.startswith("valid/"):
        return
    if valid_data is None:
        raise ArgumentError(
            f"{component!r} monitors {metric!r}, but there are no valid_data. Give the loop some, "
            "or monitor a metric of training, such as 'train/loss'"
        )
    if isinstance(valid_data, Mapping):
        prefixes = [f"valid/{name}/" for name in valid_data]
        if not metric.startswith(tuple(prefixes)):
            choices = " or ".join(repr(each + metric.rpartition("/")[2]) for each in prefixes)
            raise ArgumentError(
                f"{component!r} monitors {metric!r}, but valid_data are named sets, and that is "
                f"of none of them. Monitor {choices}"
            )


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
    same = [name for name in logged if name.rpartition("/")[2] == metric]  # without its phase
    hint = f"Did you mean {same[-1]!r}? " if same else did_you_mean(metric, logged)
    own = metric.rpartition("/")[2]
    if metric.startswith("valid/") and not any(name.startswith("valid/") for name in logged):
        # that of training, which is the likeliest name then, is no measure of validation
        hint = "No validation has logged any: valid_data may have no batch. " if logged else ""
    if not hint and own != "loss":  # which the component metrics logs
        hint = f"Log it for whole epochs: loop.log({{{own!r}: value}}, level='epoch'). "
    return RunError(
        f"{component!r} needs the metric {metric!r}, which was not logged at epoch level in a "
        f"whole epoch. {hint}Logged were: "
        f"{', '.join(logged) or 'none. The component metrics logs the mean loss'}"
    )
