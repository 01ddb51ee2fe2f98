"""Watching a metric: which value is better, which one is the best, and which one is resumed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from ttl_core.arguments import number, one_of
from ttl_core.errors import ArgumentError, RunError, StateError
from ttl_core.missing_metrics import LoggedEpochs

__all__ = ["Monitor", "likely_mode"]

_LESS_IS_BETTER = re.compile(
    "bpb|bpc|cer|cost|divergence|err|error|fid|loss|mae|mape|mse|nll|perplexity|ppl|rmse|wer"
)
_MORE_IS_BETTER = re.compile(
    "acc|accuracy|ap|auc|auroc|bleu|dice|f1|fscore|iou|kappa|map|mrr|ndcg|precision|psnr|r2|recall|"
    "rouge|score|specificity|ssim"
)
_CHOICES = (
    "Give it settings='saved' to continue with the saved one, settings='new' to begin with the new "
    "one as if it had no value yet"
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
        self._argument = argument
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

    @property
    def setting(self) -> dict[str, str]:
        """What decides which value is the best one: "monitor" and "mode", as plain text."""
        return {"monitor": str.__str__(self.metric), "mode": str.__str__(self.mode)}  # of enums too

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, what it is of, and when values were logged."""
        return {**self.setting, "best": self.best, **self.logged_epochs.state_dict()}

    def resumed(
        self,
        state: Mapping[str, Any],
        component: str,
        settings: Literal["saved", "new"] | None = None,
        *,
        choices: str = _CHOICES,
    ) -> Monitor | None:
        """Return the monitor with which a run resumes, with the best value of its state.

        Args:
            state: a mapping with what `state_dict` returned; if it does not tell the metric, or
                the mode, that is taken to be the one of this monitor.
            component: the name of the component that monitors the metric, for the error.
            settings: what to do where the state is of another metric or mode: continue with the
                "saved" one, or begin with the "new" one.
            choices: what to do about it, for the error of a component without `settings`.

        Returns:
            This one, or the one of the state; None to begin with this one, without the state.

        Raises:
            StateError: the state is of another metric or mode, and `settings` chooses neither.

        Example:
            >>> saved = Monitor("valid/loss").state_dict()
            >>> Monitor("valid/cost").resumed(saved, "early-stopping", "saved").metric
            'valid/loss'
        """
        is_known = state.get("monitor") is not None  # not so in states of earlier versions
        saved = {name: state[name] for name in self.setting if is_known and name in state}
        resumed = self
        if {**self.setting, **saved} != self.setting:
            if settings == "new":
                return None
            if settings is None:
                raise self._other_error(saved, component, choices)
            mode = saved.get("mode", self.mode)
            resumed = Monitor(
                saved["monitor"], mode, min_delta=self.min_delta, argument=self._argument
            )
        resumed.reset()
        best = state.get("best", math.nan)
        if math.isfinite(best):  # else there is none, and its sign may be that of another mode
            resumed.best = best
        resumed.logged_epochs.load_state_dict(state)
        return resumed

    def _other_error(self, saved: Mapping[str, str], component: str, choices: str) -> StateError:
        def written(values: Mapping[str, str]) -> str:
            names = {"monitor": self._argument, "mode": "mode"}
            return ", ".join(f"{names[name]}={values[name]!r}" for name in saved)

        return StateError(
            f"{component} has {written(self.setting)}, but the state was saved with "
            f"{written(saved)}, whose best value is no measure for the other. {choices}, or start "
            "again without the state"
        )
