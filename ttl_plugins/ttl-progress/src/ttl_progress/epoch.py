"""The text of an epoch: its row in the display, and its line at the end."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

SEPARATOR = "  "
"""What is between the parts of a line."""


@dataclass(eq=False)
class Epoch:
    """What is known of an epoch under way.

    Attributes:
        phase: "train", "valid", "test" or "predict".
        data_name: the name of its validation set, where there are several, else None.
        number: which epoch it is, as text: "epoch 1/2", or "epoch 1/2 step 300" for a validation
            inside an epoch of training; "" outside train().
        started: when, in seconds of time.monotonic, plus the seconds spent in epochs inside it.
        n_before: how many batches had passed before the first that the component has seen; None
            until then.
        n_done: how many batches have passed.
        n_expected: how many there were in an earlier epoch of the same data; None if unknown.
        n_steps_before: the value of `optim_step_num` before the first batch that was seen.
        is_complete: whether it reached its end.
        values: what was logged in it, by level.
        row: what the display shows of it.
    """

    phase: str
    data_name: str | None
    number: str
    started: float
    n_before: int | None = None
    n_done: int = 0
    n_expected: int | None = None
    n_steps_before: int | None = None
    is_complete: bool = False
    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {"batch": {}, "epoch": {}})
    row: tuple[RenderableType, ...] = ()

    @property
    def label(self) -> str:
        """What it is called on the screen, such as "valid digits epoch 1/2"."""
        return " ".join(part for part in (self.phase, self.data_name, self.number) if part)

    def cells(self, loop: TrainTestLoop, now: float) -> tuple[RenderableType, ...]:
        """Return the row of the display.

        Args:
            loop: the loop.
            now: the time, in seconds of time.monotonic.
        """
        values = self._last_loss(loop) | self._logged("batch") | self._logged("epoch")
        seconds = now - self.started
        rate = (self.n_done - (self.n_before or 0)) / seconds if seconds > 0 else 0.0
        done, before, total, count = self._extent(loop)
        left = ""
        # data may be longer than they say
        if total is not None and total >= done > before and seconds > 0:
            left = _duration((total - done) * seconds / (done - before))
        return (
            Text(self.label),
            ProgressBar(total=total, completed=done),
            Text(count),
            Text(f"{rate:.1f}/s" if rate >= 1 else f"{rate:.2g}/s" if rate else ""),
            Text(f"{left} left" if left else ""),
            Text(_shown(values), overflow="ellipsis"),
        )

    def _extent(self, loop: TrainTestLoop) -> tuple[int, int, int | None, str]:
        """Return what is done, what was before this epoch was seen, the total, and them as text.

        They are optimization steps where the run has a number of them, else batches.
        """
        if self.phase == "train" and loop.n_epochs is None and loop.n_optim_steps is not None:
            done, total = loop.optim_step_num, loop.n_optim_steps
            before = done if self.n_steps_before is None else self.n_steps_before
            return done, before, total, f"step {done}/{total}"
        before = self.n_before or 0
        if loop.n_batches is not None:
            return self.n_done, before, loop.n_batches, f"{self.n_done}/{loop.n_batches}"
        if self.n_expected is not None and self.n_done <= self.n_expected:
            return self.n_done, before, self.n_expected, f"{self.n_done}/~{self.n_expected}"
        return self.n_done, before, None, f"{self.n_done}/?"

    def line(self, loop: TrainTestLoop, seconds: float, *, is_under_way: bool = False) -> str:
        """Return the line that is printed at the end, or while the epoch is under way.

        Args:
            loop: the loop.
            seconds: how long the epoch has taken.
            is_under_way: whether it continues, so that values of its batches are shown too.
        """
        count = f"{self.n_done}"
        if not self.is_complete and loop.n_batches is not None:
            count += f"/{loop.n_batches}"
        values = self._logged("batch") if is_under_way else {}
        values |= self._logged("epoch")
        if "loss" not in values:
            values |= {f"last {name}": loss for name, loss in self._last_loss(loop).items()}
        parts = [
            self.label,
            f"{count} {'batch' if count == '1' else 'batches'}",
            f"{seconds:.1f} s" if seconds < 60 else _duration(seconds),
            _shown(values),
        ]
        return SEPARATOR.join(part for part in parts if part)

    def _logged(self, level: str) -> dict[str, Any]:
        """Return what was logged in this epoch, without the prefix of its names."""
        names = [self.phase] if self.data_name is None else [self.phase, self.data_name]
        prefix = "/".join([*names, ""])
        return {
            name.removeprefix(prefix): value
            for name, value in self.values[level].items()
            if name.startswith(prefix)
        }

    def _last_loss(self, loop: TrainTestLoop) -> dict[str, Any]:
        has_loss = self.n_done and self.phase != "predict"  # else it is of an earlier epoch
        return {"loss": getattr(loop, "loss", None)} if has_loss else {}


def _shown(values: dict[str, Any]) -> str:
    """Return values by name as text, without those that are more than one number."""
    texts = ((name, _text(value)) for name, value in values.items())
    return SEPARATOR.join(f"{name} {text}" for name, text in texts if text is not None)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    detach = getattr(value, "detach", None)
    try:
        return f"{float(detach() if detach else value):.4g}"
    except OverflowError:  # of an integer
        return "-inf" if value < 0 else "inf"
    except (TypeError, ValueError, RuntimeError):  # what torch and NumPy raise for many numbers
        return None


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
