"""Watching a metric: which value is better, which one is the best, and what if none comes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ttl_core.arguments import did_you_mean, number, one_of
from ttl_core.errors import ArgumentError, RunError

__all__ = ["Monitor", "check_can_be_logged", "likely_mode", "missing_metric_error"]

_LESS_IS_BETTER = re.compile(
    "bpb|bpc|cer|cost|divergence|err|error|fid|loss|mae|mape|mse|nll|perplexity|ppl|rmse|wer"
)
_MORE_IS_BETTER = re.compile(
    "acc|accuracy|ap|auc|auroc|bleu|dice|f1|fscore|iou|kappa|map|mrr|ndcg|precision|psnr|r2|recall|"
    "rouge|score|specificity|ssim"
)


def likely_mode(metric: str) -> Literal["min", "max"] | None:
    """Return whether less or more of a metric is better, as far as its name tells.

    It is for what is shown. Where something is decided by a metric whose name tells that more is
    better, a `Monitor` has to be given its mode.

    Args:
        metric: its name.

    Returns:
        "min" or "max"; None where the name does not tell.

    Example:
        >>> from ttl_core import likely_mode
        >>> likely_mode("valid/loss"), likely_mode("test/top5_accuracy"), likely_mode("grad-norm")
        ('min', 'max', None)
    """
    for word in reversed(re.findall(r"[a-z]+\d?", metric.lower())):  # "accuracy-loss" is a loss
        if _LESS_IS_BETTER.fullmatch(word):
            return "min"
        if _MORE_IS_BETTER.fullmatch(word):
            return "max"
    return None


class Monitor:
    """The best value so far of a metric.

    Args:
        metric: the full name of the metric, such as "valid/loss".
        mode: whether a lower ("min") or a higher ("max") value is better; by default a lower one,
            unless the name tells the opposite: then it has to be given.
        min_delta: by how much a value has to be better than the best one to replace it.
        argument: the name under which `metric` was given, for errors.

    Attributes:
        best: the best value so far; infinity of the sign that is worst before the first.
        logged_epochs: the epochs in which the metric was logged, as far as they were added.

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
    logged_epochs: LoggedEpochs

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"] | None = None,
        *,
        min_delta: float = 0.0,
        argument: str = "monitor",
    ) -> None:
        if not isinstance(metric, str):
            raise ArgumentError(
                f"{argument} is {metric!r}, but has to be the name of a metric, as 'valid/loss'"
            )
        self.metric = metric
        if mode is None and likely_mode(metric) == "max":
            raise ArgumentError(
                f"{argument}={metric!r} is a metric of which more seems to be better, and mode is "
                "'min' by default. Give mode='max', or mode='min' if less is better"
            )
        self.mode: Literal["min", "max"] = one_of(
            "mode", "min" if mode is None else mode, ("min", "max")
        )
        self.min_delta = number("min_delta", min_delta, at_least=0)
        self.reset()

    def reset(self) -> None:
        """Drop the best value, and when values were logged."""
        self.logged_epochs = LoggedEpochs()
        self.best = math.inf if self.mode == "min" else -math.inf

    def reaches(self, value: float, target: float) -> bool:
        """Return whether a value is as good as another one, or better.

        Args:
            value: the value.
            target: what to compare it with.
        """
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
        """Make a value the best one if it is better; return whether it was.

        Args:
            value: the value.
        """
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


class LoggedEpochs:
    """The epochs in which a metric was logged, by which it is noticed that none comes any more.

    Example:
        >>> epochs = Monitor("valid/loss").logged_epochs
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
    return RunError(
        f"{component!r} needs the metric {metric!r}, which was not logged at epoch level in a "
        f"whole epoch. {hint}Logged were: "
        f"{', '.join(logged) or 'none. The component metrics logs the mean loss'}"
    )
