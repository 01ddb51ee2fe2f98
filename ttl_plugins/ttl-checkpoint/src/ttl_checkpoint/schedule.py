"""When the next checkpoint is due."""

from __future__ import annotations

import datetime
import math
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ttl_core import ArgumentError
from ttl_core.arguments import number, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_TEXT = re.compile(r"(?:(\d+) )?(epoch|step|minute)s?")


class Interval(NamedTuple):
    """The interval between checkpoints, in one of three units.

    Attributes:
        epochs: the number of epochs, or None.
        steps: the number of optimization steps, or None.
        seconds: the time, or None.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None


def parse_every(every: Any) -> Interval:
    """Return the interval that the argument `every` says.

    Args:
        every: "epoch", "2 epochs", a number of steps, "500 steps", "10 minutes" or a timedelta.

    Raises:
        ArgumentError: it is none of these.

    Example:
        >>> parse_every("10 minutes")
        Interval(epochs=None, steps=None, seconds=600)
    """
    try:
        if isinstance(every, datetime.timedelta):
            return Interval(seconds=number("every", every.total_seconds(), above=0))
        if not isinstance(every, str):
            return Interval(steps=whole_number("every", every, at_least=1))
        match = _TEXT.fullmatch(every)
        if match:
            count = whole_number("every", int(match[1] or 1), at_least=1)
            match match[2]:
                case "epoch":
                    return Interval(epochs=count)
                case "step":
                    return Interval(steps=count)
                case "minute":
                    return Interval(seconds=60 * count)
    except ArgumentError:
        pass
    raise ArgumentError(
        f"every is {every!r}, but has to be 'epoch', a number of steps from 1, a timedelta, or "
        "one such as '2 epochs', '500 steps' or '10 minutes'"
    )


class Schedule:
    """When the next checkpoint of a run is due.

    Args:
        every: the interval, see `parse_every`.

    Attributes:
        interval: the interval.
        next_step: the value of `global_step` at which one is due; infinity if steps do not matter.
        deadline: the value of `time.monotonic()` at which one is due; None if time does not matter.
    """

    def __init__(self, every: Any) -> None:
        self.interval = parse_every(every)
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self.next_step: float = math.inf
        self.deadline: float | None = None

    def start(self, global_step: int) -> None:
        """Start the interval, unless this run has started it before."""
        if self.next_step == math.inf and self.deadline is None:
            self.restart(global_step)

    def restart(self, global_step: int) -> None:
        """Start the interval at this moment; of steps, multiples of the interval count."""
        steps, seconds = self.interval.steps, self.interval.seconds
        if steps is not None:
            self.next_step = (global_step // steps + 1) * steps
        if seconds is not None:
            self.deadline = time.monotonic() + seconds

    def is_due(self, loop: TrainTestLoop) -> bool:
        """Return whether a checkpoint is due at this safe point."""
        if self.interval.epochs is not None:
            n_epochs = loop.epoch_num + (loop.valid_data is None)
            return ends_epoch(loop) and n_epochs % self.interval.epochs == 0
        if self.deadline is not None:
            return time.monotonic() >= self.deadline
        return loop.global_step >= self.next_step


def ends_epoch(loop: TrainTestLoop) -> bool:
    """Return whether this safe point is the last one of an epoch, with its validation."""
    return not loop.is_training and (loop.valid_data is None or loop.epoch_desc == "valid")
