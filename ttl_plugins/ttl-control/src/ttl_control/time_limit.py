"""The component `time-limit`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class TimeLimit(LoopComponent):
    """A time after which training stops, at the next safe point.

    The time is the one since train() began, plus what a resumed run had used before. Each train()
    has the full time.

    Args:
        limit: how long; or give it by the other arguments, which are added up.
        hours: how many hours.
        minutes: how many minutes.
        seconds: how many seconds.

    Attributes:
        limit: how long, a timedelta.
        reason: why it stopped; None if it did not.

    Raises:
        ArgumentError: `limit` is no timedelta, another argument is no number, the limit is given
            twice or not at all, or it is not above 0.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> limit = TimeLimit(seconds=0.01)
        >>> loop = TrainTestLoop(torch.nn.Identity(), [limit], [0])
        >>> loop.train(n_epochs=10**9)
        >>> limit.reason
        'the time limit of 0:00:00.010000 is reached'
    """

    # Both stop last in on_safe_point, and stop() skips the rest of the point: early-stopping would
    # not count the newest value of its metric.
    after = "early-stopping"
    main_only = True  # the clock of one process decides for its group

    def __init__(
        self,
        limit: timedelta | None = None,
        *,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        parts = timedelta(
            hours=float(number("hours", hours)),
            minutes=float(number("minutes", minutes)),
            seconds=float(number("seconds", seconds)),
        )
        if not isinstance(limit, timedelta | None):
            raise ArgumentError(
                f"limit is {limit!r}, no timedelta. For seconds write seconds={limit}"
            )
        if limit is not None and parts:
            raise ArgumentError(f"the limit is given twice, as {limit} and as {parts}")
        self.limit = parts if limit is None else limit
        if self.limit <= timedelta():
            raise ArgumentError(f"the limit is {self.limit}, but has to be above 0: give hours=...")
        self.reason: str | None = None
        self._deadline: float | None = None  # by time.monotonic; None outside train()

    @hookimpl(tryfirst=True)  # what other components do in on_train_begin takes time too
    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Start the clock."""
        self.reason = None
        self._deadline = self._deadline_after(0.0)

    @hookimpl(trylast=True)  # stop() skips the rest of the point: components that save come first
    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Stop if the time is over."""
        if self._deadline is None:  # this component was enabled in mid-run
            self._deadline = self._deadline_after(0.0)
        if monotonic() >= self._deadline:
            self.reason = f"the time limit of {self.limit} is reached"
            _log.info("time-limit: %s", self.reason)
            loop.stop(self.reason)

    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Stop the clock."""
        self._deadline = None

    def state_dict(self) -> dict[str, float]:
        """Return the seconds used so far."""
        if self._deadline is None:
            return {"used": 0.0}
        return {"used": self.limit.total_seconds() - (self._deadline - monotonic())}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Resume with the time that is left.

        Args:
            state: what `state_dict` returned.
        """
        self._deadline = self._deadline_after(state["used"])

    def _deadline_after(self, used: float) -> float:
        return monotonic() + self.limit.total_seconds() - used
