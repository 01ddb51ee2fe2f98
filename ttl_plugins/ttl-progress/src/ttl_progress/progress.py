"""The component `progress`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import flag, number, whole_number
from ttl_progress.display import Display
from ttl_progress.epoch import Epoch
from ttl_progress.epoch_table import epoch_table

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_MAX_REFRESHES = 10


class Progress(LoopComponent):
    """A bar for each epoch, and one line at its end.

    In a terminal, a bar with the newest loss and values logged at batch level is below everything
    that is printed. In any output, each epoch ends in a line with the values logged at epoch level;
    if no loss is among them, with the last batch's. A prediction has a bar and a line without a
    loss. A train() of several epochs ends in a table of them, with the best values marked. That of
    a resumed one has the epochs since and the best of them, and says so. A run that a component has
    stopped ends in a line with its reason.

    Between two refreshes no value is read, so nothing waits for the device.

    Args:
        refresh_per_second: how often the bar is refreshed at most, up to 10.
        every: where the output is no terminal, print a line each so many optimization steps too.
        table: whether to print the table of epochs.
        console: where to print; by default rich's own, on standard output.

    Raises:
        ArgumentError: `console` is no rich console, `refresh_per_second` is not above 0 and up to
            10, or `every` is no whole number from 1.

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

    only_once = True
    main_only = True

    def __init__(
        self,
        *,
        refresh_per_second: float = 5.0,
        every: int | None = None,
        table: bool = True,
        console: Console | None = None,
    ) -> None:
        self.refresh_per_second = number("refresh_per_second", refresh_per_second, above=0)
        if refresh_per_second > _MAX_REFRESHES:
            raise ArgumentError(
                f"refresh_per_second is {refresh_per_second!r}, but has to be at most "
                f"{_MAX_REFRESHES}: each refresh waits for the device"
            )
        self.every = None if every is None else whole_number("every", every, at_least=1)
        self.table = flag("table", table)
        if not isinstance(console, Console | None):
            raise ArgumentError(
                f"console is {console!r}, but has to be a rich.console.Console, or None for that "
                "of standard output"
            )
        self._display = Display(console)
        self._epochs: list[Epoch] = []  # those under way, outermost first
        self._next_refresh = 0.0
        self._in_training = False
        self._n_epochs: int | None = None
        self._lengths: dict[tuple[str, str | None], int] = {}  # of complete epochs, in batches
        self._values: dict[str, dict[int, float]] = {}  # of epochs, by metric and epoch
        self._first_epoch: int | None = None  # of this train(); None if it is unknown
        self._is_resumed = False

    def fork(self) -> None:
        """Leave it out of forks of the loop, which show nothing."""

    # -- when epochs begin and end ----------------------------------------------------------

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Close what the run leaves open, and say which component has stopped it."""
        was_stopped = loop.is_stopped  # an earlier train(), before a test()
        try:
            return (yield)
        finally:
            self._close_all(loop)
            self._print_table()
            if loop.stopped_by and not was_stopped:
                by, reason = loop.stopped_by
                who = f"stopped by {by}" if by else "stopped"
                self._display.print(f"{who}: {reason}" if reason else who)
            self._in_training = False
            self._n_epochs = self._first_epoch = None
            self._values = {}

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Note which epochs will be the first and the last."""
        self._in_training = True
        self._first_epoch, self._is_resumed = loop.epoch_num + 1, loop.has_loaded_state
        self._n_epochs = None if loop.n_epochs is None else loop.epoch_num + loop.n_epochs

    @hookimpl(wrapper=True, tryfirst=True)  # outermost, so as to see what other wrappers log
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Show an epoch, and print its line when all components have ended it."""
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
        epoch = self._epochs[-1]
        if epoch.n_before is None:  # not 0 where the epoch was resumed, or joined in the middle
            epoch.n_before = loop.batch_num
            epoch.n_steps_before = loop.optim_step_num - loop.is_stepping
        epoch.n_done = loop.batch_num + 1
        now = time.monotonic()
        if now >= self._next_refresh:
            self._refresh(loop, epoch, now)
        if self.every and self._is_due(loop) and not self._display.is_live:
            self._display.print(epoch.line(loop, now - epoch.started, is_under_way=True))

    def _is_due(self, loop: TrainTestLoop) -> bool:
        has_stepped = loop.is_training and loop.is_stepping
        return has_stepped and self.every is not None and loop.global_step % self.every == 0

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Keep the newest values of the epoch, as they are."""
        for epoch in reversed(self._epochs):
            if epoch.phase == loop.epoch_desc:
                epoch.values[level].update(metrics)
                break

    # -- epochs -----------------------------------------------------------------------------

    def _open(self, loop: TrainTestLoop) -> Epoch:
        """Start to show an epoch."""
        self._in_training |= loop.is_training
        now = time.monotonic()
        epoch = Epoch(loop.epoch_desc, loop.data_name, self._number(loop), now)
        epoch.n_expected = self._lengths.get((epoch.phase, epoch.data_name))
        self._epochs.append(epoch)
        if now >= self._next_refresh:
            self._refresh(loop, epoch, now)
        return epoch

    def _number(self, loop: TrainTestLoop) -> str:
        """Return which epoch of training this is, or "" outside train()."""
        if not self._in_training:
            return ""
        total = "" if self._n_epochs is None else f"/{self._n_epochs}"
        step = f" step {loop.global_step}" if loop.is_validating and self._epochs else ""
        return f"epoch {loop.epoch_num + 1}{total}{step}"

    def _close(self, loop: TrainTestLoop, epoch: Epoch) -> None:
        """Print the line of an epoch and of those inside it."""
        while epoch in self._epochs:
            inner = self._epochs.pop()
            seconds = time.monotonic() - inner.started
            for outer in self._epochs:
                outer.started += seconds  # an epoch's time is without that of epochs inside it
            self._show()
            self._display.print(inner.line(loop, seconds))
            if inner.is_complete:
                self._lengths[inner.phase, inner.data_name] = inner.n_done
                self._keep_values(loop, inner)

    def _keep_values(self, loop: TrainTestLoop, epoch: Epoch) -> None:
        """Keep the values of an epoch of train() for the table."""
        if self.table and self._in_training:
            for name in epoch.values["epoch"]:
                value = loop.metrics.get(name)
                if isinstance(value, int | float):
                    with contextlib.suppress(OverflowError):
                        self._values.setdefault(name, {})[loop.epoch_num + 1] = float(value)

    def _print_table(self) -> None:
        n_epochs = len({epoch for by_epoch in self._values.values() for epoch in by_epoch})
        if n_epochs > 1:
            table = epoch_table(self._values, self._display.width, is_whole=self._has_all_epochs)
            self._display.print_table(table)

    @property
    def _has_all_epochs(self) -> bool:
        """Whether no epoch of the train() was before it was resumed, or this was enabled."""
        first = self._first_epoch
        has_first = all(first in by_epoch for by_epoch in self._values.values())
        return first is not None and (not self._is_resumed or has_first)

    def _close_all(self, loop: TrainTestLoop) -> None:
        if self._epochs:
            self._close(loop, self._epochs[0])

    # -- the display ------------------------------------------------------------------------

    def _refresh(self, loop: TrainTestLoop, epoch: Epoch, now: float) -> None:
        """Read the newest values of an epoch and show them. The only place that waits for them."""
        self._next_refresh = now + 1 / self.refresh_per_second
        if self._display.start():
            epoch.row = epoch.cells(loop, now)
            self._show()

    def _show(self) -> None:
        if self._epochs:
            self._display.show([epoch.row for epoch in self._epochs if epoch.row])
        else:
            self._display.stop()
