"""The component `progress`."""

from __future__ import annotations

import datetime
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import rich
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_MAX_REFRESHES = 10


class Progress(LoopComponent):
    """Show how far each epoch is, and print one line when it has ended.

    In a terminal, a bar with the newest loss and values logged at batch level stands below
    everything that is printed. Whatever the output is, each epoch ends in a line with the values
    logged at epoch level; where nobody logs a loss at that level, with the last batch's.

    Between two refreshes no value is read, so nothing waits for the device.

    Args:
        refresh_per_second: how often the bar is refreshed at most, up to 10.
        console: where to print; by default rich's own, on standard output.

    Raises:
        TypeError: `console` is no rich console.
        ValueError: `refresh_per_second` is not above 0 and up to 10.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> class Step(LoopComponent):
        ...     def on_loss_compute(self, loop):
        ...         loop.loss = torch.tensor(0.25)
        >>> loop = TrainTestLoop(torch.nn.Identity(), [Step(), Progress()], [torch.ones(2)] * 3)
        >>> loop.train(n_epochs=2)
        train epoch 1/2  3 batches  0.0 s  last loss 0.25
        train epoch 2/2  3 batches  0.0 s  last loss 0.25
    """

    def __init__(
        self, *, refresh_per_second: float = _MAX_REFRESHES, console: Console | None = None
    ) -> None:
        if not 0 < refresh_per_second <= _MAX_REFRESHES:
            raise ValueError(
                f"refresh_per_second is {refresh_per_second!r}, but has to be above 0 and at most "
                f"{_MAX_REFRESHES}: each refresh waits for the device"
            )
        if not isinstance(console, Console | None):
            raise TypeError(f"console is {console!r}, no rich.console.Console")
        self.refresh_per_second = refresh_per_second
        self.console = console
        self._epochs: list[_Epoch] = []  # those under way, outermost first
        self._live: Live | None = None
        self._next_refresh = 0.0
        self._in_training = False
        self._n_epochs: int | None = None

    # -- when epochs begin and end ----------------------------------------------------------

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Close what the run leaves open."""
        try:
            return (yield)
        finally:
            self._end_run(loop)

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Note which epoch will be the last."""
        self._in_training = True
        self._n_epochs = None if loop.n_epochs is None else loop.epoch_num + loop.n_epochs

    @hookimpl(wrapper=True, tryfirst=True)  # outermost, so as to see what other wrappers log
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Show an epoch, and print its line when everybody has ended it."""
        if not loop.is_validating:  # only a validation can be inside another epoch
            self._close_all(loop)
        epoch = self._open(loop)
        try:
            result = yield
            epoch.is_complete = True
            return result
        finally:
            self._close(loop, epoch)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Refresh the bar, if it is time to."""
        epoch = self._epochs[-1] if self._epochs else None
        if epoch is None or epoch.phase != loop.epoch_desc:
            epoch = self._open(loop, n_before=loop.batch_num)
        epoch.n_done = loop.batch_num + 1
        now = time.monotonic()
        if now >= self._next_refresh:
            self._refresh(loop, epoch, now)

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Keep the newest values of the epoch, as they are."""
        for epoch in reversed(self._epochs):
            if epoch.phase == loop.epoch_desc:
                epoch.values[level].update(metrics)
                break

    @hookimpl(wrapper=True)
    def on_epoch_end(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Print the line of an epoch that was joined in the middle."""
        result = yield
        if self._epochs and self._epochs[-1].n_before is not None:
            self._epochs[-1].is_complete = True
            self._close(loop, self._epochs[-1])
        return result

    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Close what is open, where the run was joined in the middle."""
        self._end_run(loop)

    def on_test_end(self, loop: TrainTestLoop) -> None:
        """Close what is open, where the run was joined in the middle."""
        self._end_run(loop)

    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Close what is open, where the run was joined in the middle."""
        self._end_run(loop)

    # -- epochs -----------------------------------------------------------------------------

    def _open(self, loop: TrainTestLoop, n_before: int | None = None) -> _Epoch:
        """Begin to show an epoch; `n_before` batches have passed where it has begun already."""
        label = loop.epoch_desc
        self._in_training |= loop.is_training
        if self._in_training:
            label += f" epoch {loop.epoch_num + 1}"
            label += "" if self._n_epochs is None else f"/{self._n_epochs}"
        now = time.monotonic()
        epoch = _Epoch(loop.epoch_desc, label, now, n_before)
        self._epochs.append(epoch)
        if now >= self._next_refresh:
            self._refresh(loop, epoch, now)
        return epoch

    def _close(self, loop: TrainTestLoop, epoch: _Epoch) -> None:
        """Print the line of an epoch and of those inside it."""
        while epoch in self._epochs:
            inner = self._epochs.pop()
            seconds = time.monotonic() - inner.started
            for outer in self._epochs:
                outer.started += seconds  # an epoch's time is without that of epochs inside it
            self._show()
            self._console.print(Text(inner.line(loop, seconds)), soft_wrap=True)

    def _close_all(self, loop: TrainTestLoop) -> None:
        if self._epochs:
            self._close(loop, self._epochs[0])

    def _end_run(self, loop: TrainTestLoop) -> None:
        self._close_all(loop)
        self._in_training = False
        self._n_epochs = None

    # -- the display ------------------------------------------------------------------------

    @property
    def _console(self) -> Console:
        return self.console or rich.get_console()

    def _has_terminal(self) -> bool:
        # FORCE_COLOR makes rich take anything for a terminal
        return self._console.is_interactive and (
            self.console is not None or self._console.file.isatty()
        )

    def _refresh(self, loop: TrainTestLoop, epoch: _Epoch, now: float) -> None:
        """Read the newest values of an epoch and show them. The only place that waits for them."""
        self._next_refresh = now + 1 / self.refresh_per_second
        if self._live is None and self._has_terminal():
            # without a thread: nobody touches tensors but the loop's own thread
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        if self._live is not None:
            epoch.row = epoch.cells(loop, now)
            self._show()

    def _show(self) -> None:
        """Put the rows of the open epochs into the display, or close it if there are none."""
        if self._live is None:
            return
        if not self._epochs:
            self._live.stop()
            self._live = None
            return
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for _ in ("batches", "rate", "time left"):
            table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, ratio=2)
        for epoch in self._epochs:
            if epoch.row:
                table.add_row(*epoch.row)
        self._live.update(table, refresh=True)


@dataclass(eq=False)
class _Epoch:
    """Hold what is known of an epoch under way.

    Attributes:
        phase: "train", "valid" or "test".
        label: what it is called on the screen.
        started: when, by time.monotonic; later by the time spent in epochs inside this one.
        n_before: how many batches had passed when it was joined in the middle, else None.
        n_done: how many batches have passed.
        is_complete: whether it went to its end.
        values: what was logged in it, by level.
        row: what the display shows of it.
    """

    phase: str
    label: str
    started: float
    n_before: int | None
    n_done: int = 0
    is_complete: bool = False
    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {"batch": {}, "epoch": {}})
    row: tuple[RenderableType, ...] = ()

    def cells(self, loop: TrainTestLoop, now: float) -> tuple[RenderableType, ...]:
        """Return the row of the display."""
        total = loop.n_batches
        values = self._last_loss(loop) | self._named("batch") | self._named("epoch")
        seconds = now - self.started
        rate = (self.n_done - (self.n_before or 0)) / seconds if seconds > 0 else 0.0
        left = "" if total is None or not rate else _duration((total - self.n_done) / rate)
        return (
            Text(self.label),
            ProgressBar(total=total, completed=self.n_done),
            Text(f"{self.n_done}/{'?' if total is None else total}"),
            Text(f"{rate:.1f}/s" if rate >= 1 else f"{rate:.2g}/s" if rate else ""),
            Text(f"{left} left" if left else ""),
            Text(_shown(values), overflow="ellipsis"),
        )

    def line(self, loop: TrainTestLoop, seconds: float) -> str:
        """Return the line that is printed in the end."""
        count = f"{self.n_done}"
        if not self.is_complete and loop.n_batches is not None:
            count += f"/{loop.n_batches}"
        values = self._named("epoch")
        if "loss" not in values:
            values |= {f"last {name}": loss for name, loss in self._last_loss(loop).items()}
        parts = [
            self.label,
            f"{count} {'batch' if count == '1' else 'batches'}",
            f"{seconds:.1f} s" if seconds < 60 else _duration(seconds),
            _shown(values),
        ]
        return "  ".join(part for part in parts if part)

    def _named(self, level: str) -> dict[str, Any]:
        """Return what was logged under the phase's name."""
        prefix = f"{self.phase}/"
        return {
            name.removeprefix(prefix): value
            for name, value in self.values[level].items()
            if name.startswith(prefix)
        }

    def _last_loss(self, loop: TrainTestLoop) -> dict[str, Any]:
        return {"loss": getattr(loop, "loss", None)} if self.n_done else {}


def _shown(values: dict[str, Any]) -> str:
    """Return values by name as text, without those that are more than one number."""
    texts = ((name, _text(value)) for name, value in values.items())
    return "  ".join(f"{name} {text}" for name, text in texts if text is not None)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    detach = getattr(value, "detach", None)
    try:
        return f"{float(detach() if detach else value):.4g}"
    except (TypeError, ValueError, RuntimeError):  # what torch and NumPy raise for many numbers
        return None


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
