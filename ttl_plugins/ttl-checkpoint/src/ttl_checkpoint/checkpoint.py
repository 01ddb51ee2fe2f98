"""The component `checkpoint`: what it does at each callback point.

It is longer than other modules, as it is one class, a third of which is documentation; all that is
not about when to do something is in other modules.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import time
import uuid
import weakref
from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from ttl_checkpoint import messages
from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.hookspecs import CheckpointPoints
from ttl_checkpoint.lazy import check_initialized, uninitialized_names
from ttl_checkpoint.manifest import SUBFOLDER
from ttl_checkpoint.metric import BestMetric
from ttl_checkpoint.preemption import Preemption, exit_of
from ttl_checkpoint.resuming import Found, comparable_position, find_in_group, origin_of
from ttl_checkpoint.retention import best_path, checked_keep
from ttl_checkpoint.schedule import Schedule, ends_epoch
from ttl_checkpoint.store import Store
from ttl_checkpoint.validation import HeldState, interruptible
from ttl_checkpoint.weights import load_best
from ttl_checkpoint.writer import Writer
from ttl_core import ArgumentError, Group, GroupError, LoopComponent, StateError, hookimpl
from ttl_core.arguments import absolute_path, describe, directory_or_run_folder, flag, one_of

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_SIGNAL, _DUE = "checkpoint-signal", "checkpoint-due"  # what processes of a group announce


class Checkpoint(LoopComponent):
    """A component that saves all that a run needs to resume to the same bits, and resumes it.

    A checkpoint is saved at safe points: when it is due, when the best metric has improved, when
    the run was rewound to before the newest one, when it ends, and when SIGTERM or ctrl-C requests
    it. Each is a directory that appears complete or not at all. A run that fails leaves a directory
    crash-..., to inspect.

    Args:
        directory: where the checkpoints are; by default the folder `checkpoints` in the folder of
            the run, which the component `run-folder` makes.
        every: when one is due: after each "epoch", after a number of optimization steps, or after
            a time, as a timedelta; "2 epochs", "500 steps" and "10 minutes" are understood too.
        keep: how many to keep, at least 2; None for all. The best one is kept besides.
        best: the full name of a metric, such as "valid/loss". Whenever it has improved, a
            checkpoint is saved.
        mode: whether less ("min") or more ("max") of it is better; by default "min". Of a metric
            whose name tells the opposite, such as "valid/accuracy", it has to be given.
        resume: "auto" to resume from the newest intact checkpoint, if there is one, of which
            those are preferred that `rollback` has not marked as unproven; "never" to
            start again, leaving those alone; "best" to resume from the one with the best metric;
            or the path of one. With "best" or a path, the newest one that was saved since is
            resumed from when the script is started again.
        asynchronous: whether to write from a thread while training continues.
        mid_epoch: whether to save inside epochs, which takes data whose order can be repeated.
            Without it, what becomes due inside an epoch is saved at its end.
        on_failure: whether the run fails if a checkpoint cannot be written ("raise"), or continues
            without it ("warn").
        signals: whether to handle SIGTERM and SIGINT in training.
        ignore: names of components and loop variables whose state may be missing, or left over,
            when resuming.
        settings: which settings to use where those of the script (a monitored metric, learning
            rates and others) differ from those of the checkpoint: "saved" or "new"; None for an
            error that lists them.

    Raises:
        ArgumentError: an argument has an unusable value.

    Attributes:
        directory: the absolute path of the directory; None until a run begins where it is not
            given.

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
    _store: Store
    _writer: Writer

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        every: str | int | datetime.timedelta = "epoch",
        keep: int | None = 3,
        best: str | None = None,
        mode: Literal["min", "max"] | None = None,
        resume: str | os.PathLike[str] = "auto",
        asynchronous: bool = False,
        mid_epoch: bool = True,
        on_failure: Literal["raise", "warn"] = "raise",
        signals: bool = True,
        ignore: Collection[str] = (),
        settings: Literal["saved", "new"] | None = None,
    ) -> None:
        if not isinstance(resume, str | os.PathLike):
            raise ArgumentError(
                f"resume is {resume!r}, but has to be 'auto', 'never', 'best' or a path"
            )
        if resume not in ("auto", "never", "best"):
            resume = absolute_path("resume", resume)
        self.directory: Path | None = None
        self.keep = checked_keep(keep)
        self.best = best
        self.resume = resume
        self.asynchronous = flag("asynchronous", asynchronous)
        self.mid_epoch = flag("mid_epoch", mid_epoch)
        one_of("on_failure", on_failure, ("raise", "warn"))
        self.on_failure = on_failure
        self.signals = flag("signals", signals)
        if not isinstance(ignore, Collection):
            raise ArgumentError(
                f"ignore is {describe(ignore)}, but has to be the names of components and loop "
                "variables"
            )
        self.ignore = ignore
        self.settings = settings and one_of("settings", settings, ("saved", "new"))
        self._metric = BestMetric(best, mode)
        self.mode = self._metric.mode
        self._schedule = Schedule(every)
        self._preemption = Preemption(on_signal=self._note_signal)
        self._run = uuid.uuid4().hex  # a run removes its own checkpoints only
        self._can_resume = True
        self._saved_at: tuple[Any, ...] | None = None
        self._resumed: tuple[Found, object] | None = None  # and its comparable position
        self._loop: weakref.ref[TrainTestLoop] | None = None
        self._held = HeldState()
        self._exit: BaseException | None = None  # that ends the run because of a signal
        self._group: Group | None = None  # of several processes
        if directory is not None:
            self._save_in(directory)
        self._reset()

    def _save_in(self, directory: str | os.PathLike[str]) -> None:
        """Save into a directory from now on."""
        self._store = Store(directory)
        self.directory = self._store.directory
        self._writer = Writer(
            self._store,
            asynchronous=self.asynchronous,
            keep=self.keep,
            mode=self.mode,
            on_failure=self.on_failure,
            on_written=self._require_check,
        )

    def _locate(self, loop: TrainTestLoop) -> Path:
        """Return the directory; where it was not given, that in the folder of the run.

        Raises:
            ArgumentError: there is no folder of the run.
        """
        if self.directory is None:
            self._save_in(directory_or_run_folder(None, loop, "checkpoint", subfolder=SUBFOLDER))
        return self._store.directory

    def _reset(self) -> None:
        """Forget what belongs to one run of the loop."""
        self._schedule.reset()
        self._metric.forget_logged()
        self._is_in_train = self._is_announced = self._is_signal_unsaved = False
        self._needs_check = True  # whether the next safe point has to be checked in any case
        self._can_save_in_epoch = self.mid_epoch
        self._held.release()

    def _require_check(self) -> None:
        self._needs_check = True

    def _note_signal(self) -> None:
        """Check the next safe point; in a group, the one at which all processes know of it."""
        self._needs_check = True
        if self._group is not None and self._preemption.received is not None:
            self._group.announce(_SIGNAL, int(self._preemption.received))

    # -- a run begins -----------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Resume, in the first run; leave nothing open."""
        self._loop = weakref.ref(loop)
        self._group = loop.group if loop.group.size > 1 else None
        self._preemption.is_in_group = self._group is not None
        self._locate(loop)
        try:
            if self._can_resume and loop.can_load_state:  # else it was enabled in the middle of one
                self._resume(loop)
            self._can_resume = False
            result = yield
            received = self._preemption.received
            if self._group is not None and self._is_in_train:
                received = next(filter(None, self._group.gather(received)), None)
            if received is not None:  # it came after the last safe point
                self._exit_by(received)
            return result
        except BaseException as exception:
            self._handle_failure(loop, exception)
            raise
        finally:
            self._end_run()

    def _resume(self, loop: TrainTestLoop) -> None:
        """Resume from the newest checkpoint of all savers in the list, for all of them."""
        savers = [
            saver
            for saver in loop.components
            if isinstance(saver, Checkpoint)
            and saver._can_resume
            and loop.components.is_enabled(saver)
        ]
        newest: tuple[Found, Checkpoint] | None = None
        for saver in savers:
            saver._locate(loop)
            saver._run = loop.group.broadcast(saver._run)
            found = find_in_group(loop.group, saver._store, saver.resume, saver.mode)
            if found is not None:
                position = found.state.get("position")
                if position is not None:
                    saver._saved_at = comparable_position(position, loop)
                if newest is None or found.rank >= newest[0].rank:
                    newest = found, saver
        if newest is not None:
            found, saver = newest
            options = {} if saver.settings is None else {"settings": saver.settings}
            loop.load_state_dict(found.state, ignore=saver.ignore, copy=False, **options)
            if loop.group.is_main:
                messages.log_resuming(saver._store, found)
            saver._resumed = found._replace(state={}), saver._saved_at
        for saver in savers:
            saver._can_resume = False

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: all components have begun when it ends
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Check before work starts that checkpoints can be written, and what would be in them."""
        result = yield
        self._metric.check_valid_data(loop.valid_data)
        self._begin_train(loop)
        if not uninitialized_names(loop.model):  # else there is nothing yet that could be saved
            loop.state_dict(copy=False, allow_unsafe=True)
        return result

    def _begin_train(self, loop: TrainTestLoop) -> None:
        self._writer.open(loop)
        self._is_in_train = True
        if self.signals:
            self._preemption.start()

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: nothing of the epoch has begun
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Hold the state if this is a validation that a component has started at a safe point."""
        if loop.is_training:
            self._held.drop()
        elif loop.can_take_state and self._can_hold and self._can_save_in_epoch:
            self._held.begin(loop, is_saved=False)
            self._needs_check = True  # where it is dropped
        return (yield)

    @hookimpl(trylast=True)  # `loop.data` are then what the epoch iterates over
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Check that a run can resume inside this epoch; protect workers from signals.

        Raises:
            StateError: it cannot, but checkpoints inside epochs are requested.
        """
        self._schedule.start(loop.global_step)  # not earlier: resuming changes the step
        self._preemption.protect_workers(loop.data)
        if self._held.is_held:
            loop.data = interruptible(loop.data, self._end_validation)
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
        if level == "epoch" and self._metric.log(metrics, loop.epoch_num):
            self._needs_check = True

    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Save, if there is a reason to; then end the run, if a signal requests it."""
        schedule = self._schedule
        if (  # first of all what is usual after a batch, which has to cost next to nothing
            loop.is_training
            and not self._needs_check
            and loop.global_step < schedule.next_step
            and (schedule.deadline is None or time.monotonic() < schedule.deadline)
        ):
            return
        self._needs_check = self._group is not None  # which decides together at each safe point
        if not self._is_in_train:  # this component was enabled in the middle of the run
            self._begin_train(loop)
            self._schedule.restart(loop.global_step)
        self._writer.poll(loop)
        received = self._received()  # once: a later one waits for the next safe point
        improved = self._metric.improvement(is_counting=self._can_save(loop))
        self._held.end()
        if ends_epoch(loop):
            self._metric.check_logged(loop.metrics, loop.epoch_num + (loop.valid_data is None))
        reason = ""
        if received is not None:
            reason = "signal"
        elif improved is not None:
            reason = "best"
        elif self._is_rewound(loop):
            reason = "rewind"
        elif self._is_due(loop):
            reason = "due"
        is_saved = bool(reason) and self._save(loop, reason, improved)
        if received is not None:
            self._writer.finish(loop)
            self._exit_by(received)
        if not loop.is_training and not ends_epoch(loop) and self._can_hold:
            self._held.begin(loop, is_saved=is_saved)

    def _received(self) -> signal.Signals | None:
        """Return the signal that ends the run; in a group, one that all processes know of."""
        if self._group is None:
            return self._preemption.received
        numbers = self._group.announced.get(_SIGNAL)
        return signal.Signals(numbers[0]) if numbers else None

    def _is_rewound(self, loop: TrainTestLoop) -> bool:
        """Return whether the newest checkpoint is of a later step, which the run has left again.

        Loggers have removed what they wrote until then, so that no run resumes there.
        """
        return self._saved_at is not None and loop.global_step < self._saved_at[1]

    def _is_due(self, loop: TrainTestLoop) -> bool:
        """Return whether one is due; in a group, the clock of the main process counts."""
        if self._group is None or self._schedule.deadline is None:
            return self._schedule.is_due(loop)
        if self._group.is_main and not self._is_announced and self._schedule.is_due(loop):
            self._is_announced = True
            self._group.announce(_DUE)
        return _DUE in self._group.announced

    @property
    def _can_hold(self) -> bool:
        """Whether a signal can end a validation: in a group one process alone could not."""
        return self._preemption.is_handling and self._group is None

    def _can_save(self, loop: TrainTestLoop) -> bool:
        return self._can_save_in_epoch or not loop.is_training

    def _save(self, loop: TrainTestLoop, reason: str, improved: float | None = None) -> bool:
        """Save, where a run can resume from; return whether it can."""
        if self._can_save(loop):
            self._writer.finish(loop)  # one at a time
            check_initialized(loop.model)
            self._schedule.restart(loop.global_step)
            self._is_announced = False
            position = self._writer.save(loop, reason=reason, best=improved, **self._about())
            self._saved_at = comparable_position(position, loop)
            return True
        if reason == "signal":
            self._is_signal_unsaved = True
            _log.warning(
                "checkpoint: nothing repeats the order of these data, so the run will resume "
                "from its last checkpoint, not from here. To save inside epochs, give a DataLoader "
                "sampler=SeededSampler(dataset) in place of shuffle=True"
            )
        return False

    def _about(self) -> dict[str, Any]:
        """Return what manifests say about the run and its saver."""
        return {"run": self._run, "resumed_from": origin_of(self.resume), **self._metric.setting}

    # -- a signal ---------------------------------------------------------------------------

    def _end_validation(self) -> None:
        """End a validation before its next batch, if a signal requests it."""
        if self._preemption.received is not None:
            self._exit = exit_of(self._preemption.received)
            raise self._exit

    def _exit_by(self, received: signal.Signals) -> NoReturn:
        """End the run as one that a signal has ended, and log what was saved, and how to resume."""
        if self._group is None or self._group.is_main:
            self._log_exit(received)
        raise exit_of(received)

    def _log_exit(self, received: signal.Signals) -> None:
        newest = self._writer.newest
        with contextlib.suppress(CheckpointError):  # nothing keeps a run from ending
            newest = newest or next(iter(self._store.checkpoints()), None)
        is_new = not self._is_signal_unsaved
        messages.log_exit(received, newest, can_resume=self.resume != "never", is_new=is_new)

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
        now = None if position is None else comparable_position(position, loop)
        if now not in (None, self._saved_at):
            self._save(loop, "end", improved)
        self._writer.finish(loop)
        if self._resumed is not None and now == self._resumed[1]:
            messages.log_complete(loop, self._store.directory, is_stopped=position["is_stopped"])
        self._resumed = None
        messages.remember(loop, self._store.directory)

    def _handle_failure(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Wait for what is being written, and write a directory crash-... after an exception."""
        if not self._is_in_train:
            return
        try:
            self._writer.finish(loop, alone=True)
            if exception is self._exit:
                if self._held.state is not None:
                    state = self._held.state
                    self._writer.save_held(loop, state, reason="signal", best=None, **self._about())
                if self._preemption.received is not None:
                    self._log_exit(self._preemption.received)
            # those come from saving, resuming and other processes, not from training here
            is_own = isinstance(exception, CheckpointError | StateError | GroupError)
            is_lazy = bool(uninitialized_names(loop.model))
            has_begun = loop.global_step > 0 or "batch_num" in vars(loop)
            if isinstance(exception, Exception) and has_begun and not is_own and not is_lazy:
                self._writer.save_crash(loop, best=None, **self._about())
        except Exception as error:  # must not hide the failure
            exception.add_note(f"checkpoint then failed: {error}")
            if not isinstance(exception, Exception):  # of which no notes are printed
                _log.error("checkpoint: %s", error)

    def _end_run(self) -> None:
        self._preemption.stop()
        self._writer.close()
        self._reset()

    # -- its own state ----------------------------------------------------------------------

    def fork(self) -> None:
        """Leave it out of forks of the loop, which write no files."""

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, and the identifier of the run."""
        return {**self._metric.state_dict(), "run": self._run}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the checkpoints of a run.

        Args:
            state: what `state_dict` returned.

        Raises:
            StateError: it is of another metric, and `settings` does not choose one.
        """
        self._metric.load_state_dict(state, self.settings)
        self._run = state["run"]
        self._needs_check = True  # the run may be rewinding

    # -- the best one -----------------------------------------------------------------------

    @property
    def best_path(self) -> Path | None:
        """The checkpoint with the best metric, of the run that has saved last; None if none has."""
        return None if self.directory is None else best_path(self._store, self.mode)

    def load_best(self, loop: TrainTestLoop | None = None) -> Path:
        """Load the weights of the best checkpoint into the model of the loop, to use or test them.

        They are the averages with which the metric was measured where a component such as `ema`
        kept some, which are then those of the checkpoint too. Optimizers and counters stay.

        Args:
            loop: the loop; the one that has run with this component by default.

        Returns:
            The checkpoint.

        Raises:
            ArgumentError: no directory was given, and there is no folder of a run.
            CheckpointError: there is none, or it cannot be read.
            RunError: the loop is running, or none has run with this component.
            StateError: the model is another one, or a component has averages that would replace
                what is loaded, and none in the checkpoint by its name.
        """
        if loop is None and self._loop is not None:
            loop = self._loop()
        directory = None if loop is None else self._locate(loop)
        path = self.best_path
        if loop is not None:
            path = loop.group.broadcast(path)  # when the main process is here, it is written
        return load_best(loop, path, directory)
