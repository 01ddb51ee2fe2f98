"""The component `checkpoint`: what it does at each callback point."""

from __future__ import annotations

import datetime
import logging
import os
import time
import uuid
from collections.abc import Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.hookspecs import CheckpointPoints
from ttl_checkpoint.lazy import check_initialized, uninitialized_names
from ttl_checkpoint.metric import BestMetric
from ttl_checkpoint.paths import absolute_path
from ttl_checkpoint.preemption import Preemption, exit_by_signal
from ttl_checkpoint.resuming import comparable_position, find_checkpoint
from ttl_checkpoint.retention import checked_keep
from ttl_checkpoint.schedule import Schedule, ends_epoch
from ttl_checkpoint.store import Store
from ttl_checkpoint.writer import Writer
from ttl_core import ArgumentError, LoopComponent, StateError, hookimpl
from ttl_core.arguments import one_of

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class Checkpoint(LoopComponent):
    """A component that saves all that a run needs to resume to the same bits, and resumes it.

    A checkpoint is saved at safe points: when it is due, when the best metric has improved, when
    the run ends, and when SIGTERM or ctrl-C requests it. Each is a directory that appears
    complete or not at all. A run that fails leaves a directory crash-..., to inspect.

    Args:
        directory: where the checkpoints are.
        every: when one is due: after each "epoch", after a number of optimization steps, or after
            a time, as a timedelta; "2 epochs", "500 steps" and "10 minutes" are understood too.
        keep: how many to keep, at least 2; None for all. The best one is kept besides.
        best: the full name of a metric, such as "valid/loss". Whenever it has improved, a
            checkpoint is saved.
        mode: whether less ("min") or more ("max") of it is better.
        resume: "auto" to resume from the newest intact checkpoint, if there is one; "never" to
            start again, leaving those alone; or the path of one.
        asynchronous: whether to write from a thread while training continues.
        mid_epoch: whether to save inside epochs, which takes data whose order can be repeated.
            Without it, what becomes due inside an epoch is saved at its end.
        on_failure: whether the run fails if a checkpoint cannot be written ("raise"), or continues
            without it ("warn").
        signals: whether to handle SIGTERM and SIGINT in training.
        ignore: names of components and loop variables whose state may be missing, or left over,
            when resuming.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> import pathlib, tempfile
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> directory = tempfile.mkdtemp()
        >>> for n_epochs in (2, 3):  # a script, and the same script with one more epoch
        ...     loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                          [Step(), Checkpoint(directory)],
        ...                          ComponentConformance.make_data())
        ...     loop.train(n_epochs)
        >>> loop.epoch_num, sorted(path.name for path in pathlib.Path(directory).glob("0*"))
        (3, ['000001-epoch-1-step-3', '000002-epoch-2-step-6', '000003-epoch-3-step-9'])
    """

    hookspecs = CheckpointPoints

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: str | int | datetime.timedelta = "epoch",
        keep: int | None = 3,
        best: str | None = None,
        mode: Literal["min", "max"] = "min",
        resume: str | os.PathLike[str] = "auto",
        asynchronous: bool = False,
        mid_epoch: bool = True,
        on_failure: Literal["raise", "warn"] = "raise",
        signals: bool = True,
        ignore: Collection[str] = (),
    ) -> None:
        if not isinstance(resume, str | os.PathLike):
            raise ArgumentError(f"resume is {resume!r}, but has to be 'auto', 'never' or a path")
        if resume not in ("auto", "never"):
            resume = absolute_path("resume", resume)
        self._store = Store(directory)
        self.directory = self._store.directory
        self.keep = checked_keep(keep)
        self.best = best
        self.mode = mode
        self.resume = resume
        self.asynchronous = asynchronous
        self.mid_epoch = mid_epoch
        self.on_failure = one_of("on_failure", on_failure, ("raise", "warn"))
        self.signals = signals
        self.ignore = ignore
        self._metric = BestMetric(best, mode)
        self._schedule = Schedule(every)
        self._writer = Writer(
            self._store,
            asynchronous=asynchronous,
            keep=self.keep,
            mode=mode,
            on_failure=on_failure,
            on_written=self._require_check,
        )
        self._preemption = Preemption(on_signal=self._require_check)
        self._run = uuid.uuid4().hex  # a run removes its own checkpoints only
        self._can_resume = True
        self._saved_at: object = None
        self._reset()

    def _reset(self) -> None:
        """Forget what belongs to one run of the loop."""
        self._schedule.reset()
        self._metric.forget_logged()
        self._is_in_train = False
        self._needs_check = True  # whether the next safe point has to be checked in any case
        self._can_save_in_epoch = self.mid_epoch

    def _require_check(self) -> None:
        self._needs_check = True

    # -- a run begins -----------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Resume, in the first run; leave nothing open."""
        try:
            if self._can_resume and loop.can_load_state:  # else it was enabled in the middle of one
                self._resume(loop)
            self._can_resume = False
            result = yield
            signal = self._preemption.received
            if signal is not None:  # it came after the last safe point
                exit_by_signal(signal)
            return result
        except BaseException as exception:
            self._handle_failure(loop, exception)
            raise
        finally:
            self._end_run()

    def _resume(self, loop: TrainTestLoop) -> None:
        found = find_checkpoint(self._store, self.resume)
        if found is not None:
            loop.load_state_dict(found.state, ignore=self.ignore)
            self._saved_at = comparable_position(found.state["position"], loop)
            _log.warning("checkpoint: resuming from %s", found.path)

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: all components have begun when it ends
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Check before work starts that checkpoints can be written, and what would be in them."""
        result = yield
        self._begin_train()
        if not uninitialized_names(loop.model):  # else there is nothing yet that could be saved
            loop.state_dict(copy=False, allow_unsafe=True)
        return result

    def _begin_train(self) -> None:
        self._writer.open()
        self._is_in_train = True
        if self.signals:
            self._preemption.start()

    @hookimpl(trylast=True)  # `loop.data` are then what the epoch iterates over
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Check that a run can resume inside this epoch; protect workers from signals.

        Raises:
            StateError: it cannot, but checkpoints inside epochs are requested.
        """
        self._schedule.start(loop.global_step)  # not earlier: resuming changes the step
        self._preemption.protect_workers(loop.data)
        if loop.is_training and self.mid_epoch:
            self._can_save_in_epoch = True
            try:
                loop.check_resumable()
            except StateError as error:
                self._can_save_in_epoch = False
                if self._schedule.interval.epochs is None:
                    error.add_note(
                        "Or save at the ends of epochs only: use('checkpoint', ..., "
                        "mid_epoch=False)"
                    )
                    raise

    # -- saving -----------------------------------------------------------------------------

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Keep the value of the monitored metric for the next safe point."""
        if level == "epoch" and self._metric.log(metrics):
            self._needs_check = True

    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Save, if there is a reason to; then end the run, if a signal requests it."""
        if (  # first of all what is usual after a batch, which has to cost next to nothing
            loop.is_training
            and loop.global_step < self._schedule.next_step
            and not self._needs_check
            and (self._schedule.deadline is None or time.monotonic() < self._schedule.deadline)
        ):
            return
        self._needs_check = False
        if not self._is_in_train:  # this component was enabled in the middle of the run
            self._begin_train()
            self._schedule.restart(loop.global_step)
        self._writer.poll(loop)
        signal = self._preemption.received  # read once: a later one waits for the next safe point
        improved = self._metric.improvement(is_counting=self._can_save(loop))
        if ends_epoch(loop):
            self._metric.check_logged(loop.metrics)
        if signal is not None:
            self._save(loop, "signal", improved)
            self._writer.finish(loop)
            exit_by_signal(signal)
        elif improved is not None:
            self._save(loop, "best", improved)
        elif self._schedule.is_due(loop):
            self._save(loop, "due")

    def _can_save(self, loop: TrainTestLoop) -> bool:
        return self._can_save_in_epoch or not loop.is_training

    def _save(self, loop: TrainTestLoop, reason: str, improved: float | None = None) -> None:
        """Save, where a run can resume from."""
        if self._can_save(loop):
            self._writer.finish(loop)  # one at a time
            check_initialized(loop.model)
            self._schedule.restart(loop.global_step)
            position = self._writer.save(loop, reason=reason, run=self._run, best=improved)
            self._saved_at = comparable_position(position, loop)
        elif reason == "signal":
            _log.warning(
                "checkpoint: nothing repeats the order of these data, so the run will resume "
                "from its last checkpoint, not from here"
            )

    # -- a run ends -------------------------------------------------------------------------

    @hookimpl(tryfirst=True)  # before components change what the last safe point left
    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Save the end of the run, unless that was done, and wait for what is being written.

        Where a run was stopped elsewhere than at a safe point, no run can resume from its end.
        """
        if not self._is_in_train:
            return
        improved = self._metric.improvement()  # logged since the last safe point
        if uninitialized_names(loop.model):  # no batch has passed through it
            return
        position = loop.state_dict(copy=False, allow_unsafe=True)["position"]
        if position is not None and comparable_position(position, loop) != self._saved_at:
            self._save(loop, "end", improved)
        self._writer.finish(loop)

    def _handle_failure(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Wait for what is being written, and write a directory crash-... after an exception."""
        if not self._is_in_train:
            return
        try:
            self._writer.finish(loop)
            # those come from saving and resuming, not from training
            is_own = isinstance(exception, CheckpointError | StateError)
            is_lazy = bool(uninitialized_names(loop.model))
            if isinstance(exception, Exception) and not is_own and not is_lazy:
                self._writer.save_crash(loop, run=self._run)
        except Exception as error:  # must not hide the failure
            exception.add_note(f"checkpoint then failed: {error}")

    def _end_run(self) -> None:
        self._preemption.stop()
        self._writer.close()
        self._reset()

    # -- its own state ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, and the identifier of the run."""
        return {"best": self._metric.best, "run": self._run}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the checkpoints of a run.

        Args:
            state: what `state_dict` returned.
        """
        self._metric.best, self._run = state["best"], state["run"]
