"""The component `checkpoint`."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import logging
import math
import os
import re
import signal
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from ttl_checkpoint.preemption import Preemption
from ttl_checkpoint.store import CheckpointError, CorruptError, Store, is_text, read, read_manifest
from ttl_core import ArgumentError, LoopComponent, RunError, StateError, hookimpl, hookspec

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_N_CRASHES = 2
_NOTHING_TO_SEE = (CheckpointError, StateError)  # failures of saving and going on themselves


class CheckpointPoints:
    """Declare the callback points that `checkpoint` brings."""

    @hookspec
    def checkpoint_saved(self, loop: TrainTestLoop, path: Path) -> object:
        """Take note of a checkpoint that is on disk for good. Fires at safe points, and at the end.

        Args:
            loop: the loop.
            path: the directory of the checkpoint.
        """
        return None


class Checkpoint(LoopComponent):
    """Save all that a run needs to go on to the same bits, and go on when started again.

    A checkpoint is saved at safe points: when it is due, when the best metric has got better, when
    the run ends, and when SIGTERM or ctrl-C asks it to. Each is a directory that appears as a whole
    or not at all. A run that fails leaves a directory crash-..., to look into.

    Args:
        directory: where the checkpoints are.
        every: when one is due: after each "epoch", after so many optimization steps, or after a
            time, as a timedelta; "2 epochs", "500 steps" and "10 minutes" are understood too.
        keep: how many to keep, at least 2; None for all. The best one is kept besides.
        best: the full name of a metric, such as "valid/loss". Whenever it has got better, a
            checkpoint is saved.
        mode: whether less ("min") or more ("max") of it is better.
        resume: "auto" to go on from the newest whole checkpoint, if there is one; "never" to begin
            anew, leaving those alone; or the path of one.
        asynchronous: whether to write from a thread while training goes on.
        mid_epoch: whether to save inside epochs, which takes data whose order can be repeated.
            Without it, what gets due inside an epoch is saved at its end.
        on_failure: whether the run fails if a checkpoint cannot be written ("raise"), or goes on
            without it ("warn").
        signals: whether to handle SIGTERM and SIGINT in training.
        ignore: names of components and loop variables whose state may be missing, or left over,
            when going on.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> import tempfile
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> directory = tempfile.mkdtemp()
        >>> for n_epochs in (2, 3):  # a script, and the same script with one more epoch
        ...     loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                          [Step(), Checkpoint(directory)],
        ...                          ComponentConformance.make_data())
        ...     loop.train(n_epochs)
        >>> loop.epoch_num, sorted(path.name for path in Path(directory).glob("0*"))
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
        if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
            raise ArgumentError(f"directory is {directory!r}, no path such as 'runs/a'")
        if keep is not None and (not isinstance(keep, int) or keep < 2):
            raise ArgumentError(
                f"keep is {keep!r}, but has to be at least 2, so that one is left if the newest is "
                "found corrupt; None keeps all"
            )
        if best is not None and not isinstance(best, str):
            raise ArgumentError(f"best is {best!r}, no name of a metric such as 'valid/loss'")
        if mode not in ("min", "max"):
            raise ArgumentError(f"mode is {mode!r}, neither 'min' nor 'max'")
        if on_failure not in ("raise", "warn"):
            raise ArgumentError(f"on_failure is {on_failure!r}, neither 'raise' nor 'warn'")
        if not isinstance(resume, str | os.PathLike):
            raise ArgumentError(f"resume is {resume!r}, neither 'auto', 'never' nor a path")
        self._epochs, self._steps, self._seconds = _parse_every(every)
        self.directory = Path(directory)
        self.keep = keep
        self.best = best
        self.mode = mode
        self.resume = resume
        self.asynchronous = asynchronous
        self.mid_epoch = mid_epoch
        self.on_failure = on_failure
        self.signals = signals
        self.ignore = ignore
        self._store = Store(directory)
        self._preemption = Preemption(self._wake)  # which handles nothing before it begins
        self._copy: dict[str, Any] | None = None  # memory to copy into
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[Path] | None = None
        self._run = uuid.uuid4().hex  # its own checkpoints are those that it may remove
        self._has_looked = False
        self._saved_at: object = None
        self._best_value = math.inf if mode == "min" else -math.inf
        self._value_here: float | None = None
        self._forget()

    def _forget(self) -> None:
        """Forget what belongs to one run of the loop."""
        self._in_train = self._is_around = False
        # What the hot path looks at: nothing is to be done before that step, or until this is set.
        self._next_step: float = math.inf
        self._is_awake = True
        self._deadline: float | None = None
        self._is_due = False
        self._is_planned = False
        self._newest_value: Any = None
        self._can_save_inside = self.mid_epoch

    def _wake(self) -> None:
        self._is_awake = True

    # -- a run begins and ends --------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Look for a checkpoint to go on from, in the first run; leave nothing open."""
        self._is_around = True
        try:
            if not self._has_looked:
                self._has_looked = True
                self._load(loop)
            result = yield
            if self._preemption.received is not None:
                _end(self._preemption.received)  # it came after the last safe point
            return result
        except BaseException as exception:
            self._note_failure(loop, exception)
            raise
        finally:
            self._end_run()

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: by its end everybody has begun
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Check before work starts that checkpoints can be written, and what would be in them."""
        result = yield
        self._begin(loop)
        loop.state_dict(copy=False, allow_unsafe=True)
        return result

    @hookimpl(trylast=True)  # by then `loop.data` are what will be gone through
    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Check that a run can go on inside this epoch; keep workers from dying of signals.

        Raises:
            StateError: it cannot, but checkpoints inside epochs are asked for.
        """
        if not self._is_planned:  # not earlier: the run may go on elsewhere than where it began
            self._plan(loop.global_step)
        self._preemption.shield_workers(loop.data)
        if loop.is_training and self.mid_epoch:
            self._can_save_inside = True
            try:
                loop.check_resumable()
            except StateError as error:
                self._can_save_inside = False
                if self._epochs is None:
                    error.add_note(
                        "Or save at the ends of epochs only: use('checkpoint', ..., "
                        "mid_epoch=False)"
                    )
                    raise

    @hookimpl(tryfirst=True)  # before anybody changes what the last safe point left
    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Save where the run has ended, unless that was done, and wait for what is being written.

        A run that was stopped elsewhere than at a safe point has nothing there to go on from.
        """
        if not self._in_train:
            return
        self._is_better(loop)  # what was logged since the last safe point
        state = loop.state_dict(copy=False, allow_unsafe=True)
        if state["position"] is not None and _place(state["position"], loop) != self._saved_at:
            self._save(loop, "end")
        self._finish(loop)
        if not self._is_around:
            self._end_run()

    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """End what around_run would, where this component was switched on in mid-run."""
        self._note_failure(loop, exception)
        self._end_run()

    def _note_failure(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Wait for what is being written, and write what there is to a directory crash-..."""
        if not self._in_train:
            return
        try:
            self._finish(loop)
            if isinstance(exception, Exception) and not isinstance(exception, _NOTHING_TO_SEE):
                self._write_crash(loop)
        except Exception as error:  # it shall not hide the failure
            exception.add_note(f"checkpoint then failed: {error}")

    def _write_crash(self, loop: TrainTestLoop) -> None:
        state = {**loop.state_dict(copy=False, allow_unsafe=True), "position": None}
        path = self._store.write(state, self._about(loop, state, "exception"), crash=True)
        _log.warning("checkpoint: %s holds the state at the failure, to look into", path)
        for old in self._store.crashes()[_N_CRASHES:]:
            self._store.remove(old)

    def _begin(self, loop: TrainTestLoop) -> None:
        self._has_looked = True
        try:
            self._store.open()
        except CheckpointError as error:
            self._fail(error)
        self._in_train = True
        if self.signals:
            self._preemption.begin()

    def _end_run(self) -> None:
        self._preemption.end()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = self._writing = self._copy = None
        self._store.close()
        self._forget()

    # -- at a safe point --------------------------------------------------------------------

    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> None:
        """Note a value of the metric whose best is kept."""
        if level == "epoch" and self.best in metrics:
            self._newest_value = metrics[self.best]
            self._is_awake = True

    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Save, if there is a reason to; then end, if that was asked for."""
        if (
            loop.is_training
            and loop.global_step < self._next_step
            and not self._is_awake
            and (self._deadline is None or time.monotonic() < self._deadline)
        ):
            return
        if not self._in_train:  # this component was switched on in the middle of the run
            self._begin(loop)
            self._plan(loop.global_step)
        self._is_awake = False
        if self._writing is not None and self._writing.done():
            self._finish(loop)
        # read once: one that comes from here on waits for the next safe point
        received = self._preemption.received
        reason = self._reason(loop)
        if received is not None:
            reason = "signal"
        if reason is not None:
            if not loop.is_training or self._can_save_inside:
                self._save(loop, reason)
            elif reason == "signal":
                _log.warning(
                    "checkpoint: nothing repeats the order of these data, so the run will go on "
                    "from its last checkpoint, not from here"
                )
        if received is not None:
            self._finish(loop)
            _end(received)

    def _reason(self, loop: TrainTestLoop) -> str | None:
        """Return why to save here, if there is a reason."""
        is_better = self._is_better(loop)
        ends_epoch = not loop.is_training and (
            loop.valid_data is None or loop.epoch_desc == "valid"
        )
        if self._epochs is not None:
            n_epochs = loop.epoch_num + (loop.valid_data is None)
            self._is_due |= ends_epoch and n_epochs % self._epochs == 0
        elif self._deadline is not None:
            self._is_due |= time.monotonic() >= self._deadline
        else:
            self._is_due |= loop.global_step >= self._next_step
        if ends_epoch and self.best is not None and self.best not in loop.metrics:
            self._explain_absence(loop)
        if is_better:
            return "best"
        return "due" if self._is_due else None

    def _plan(self, global_step: int) -> None:
        """Plan when the next checkpoint is due."""
        self._is_planned, self._is_due = True, False
        if self._steps is not None:
            self._next_step = (global_step // self._steps + 1) * self._steps
        if self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds

    def _is_better(self, loop: TrainTestLoop) -> bool:
        """Look at the newest value of the metric, if there is one, and keep it if it is better."""
        value, self._newest_value = self._newest_value, None
        self._value_here = None
        if value is None or (loop.is_training and not self._can_save_inside):
            return False
        value, sign = float(value), 1 if self.mode == "min" else -1
        if not math.isfinite(value) or not sign * value < sign * self._best_value:
            return False
        self._best_value = self._value_here = value
        return True

    def _explain_absence(self, loop: TrainTestLoop) -> NoReturn:
        near = difflib.get_close_matches(str(self.best), loop.metrics, n=1)
        raise RunError(
            f"checkpoint keeps the best by {self.best!r}, which nobody has logged at epoch level "
            f"in a whole epoch. {f'Did you mean {near[0]!r}? ' if near else ''}Logged were: "
            f"{', '.join(loop.metrics) or 'none. The component metrics logs the mean loss'}"
        )

    # -- saving -----------------------------------------------------------------------------

    def _save(self, loop: TrainTestLoop, reason: str) -> None:
        self._finish(loop)  # one at a time
        self._plan(loop.global_step)
        at_end = reason == "end"
        state = loop.state_dict(copy=self.asynchronous, out=self._copy, allow_unsafe=at_end)
        self._saved_at = _place(state["position"], loop)
        about = self._about(loop, state, reason)
        if not self.asynchronous:
            self._announce(loop, lambda: self._write(state, about))
            return
        self._copy = state
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = self._thread.submit(self._write, state, about)
        self._writing.add_done_callback(lambda _: self._wake())

    def _finish(self, loop: TrainTestLoop) -> None:
        """Wait for what is being written, if anything is, and announce it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._announce(loop, writing.result)

    def _announce(self, loop: TrainTestLoop, write: Callable[[], Path]) -> None:
        try:
            path = write()
        except CheckpointError as error:
            self._fail(error)
            return
        _log.info("checkpoint: saved %s", path)
        loop.hook.checkpoint_saved(loop=loop, path=path)

    def _fail(self, error: CheckpointError) -> None:
        if self.on_failure == "raise":
            raise error
        warnings.warn(str(error), UserWarning, stacklevel=2)

    def _write(self, state: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
        self._store.open()  # where that failed before
        path = self._store.write(state, about, crash=False)
        try:
            self._remove_old()
        except OSError as error:
            _log.warning("checkpoint: an old one could not be removed: %s", error)
        return path

    def _remove_old(self) -> None:
        """Remove this run's checkpoints but for the newest and the best one."""
        if self.keep is None:
            return
        own: dict[Path, float | None] = {}
        for path in self._store.checkpoints():
            with contextlib.suppress(CheckpointError):
                manifest = read_manifest(path)
                if manifest["run"] == self._run:
                    own[path] = manifest["best"]
        sign = 1 if self.mode == "min" else -1
        rated = {path: sign * value for path, value in own.items() if value is not None}
        best = min(rated, key=lambda path: rated[path], default=None)
        for path in list(own)[self.keep :]:
            if path != best:
                self._store.remove(path)

    def _about(self, loop: TrainTestLoop, state: Mapping[str, Any], reason: str) -> dict[str, Any]:
        position = state["position"] or {"is_trained": False, "train_num": None}
        return {
            "reason": reason,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "run": self._run,
            "train_num": position["train_num"],
            "epoch": loop.epoch_num + position["is_trained"],
            "step": loop.global_step,
            "best": self._value_here,
            "metrics": _numbers(loop.metrics),
            "components": state["manifest"],
            "environment": state["environment"],
        }

    # -- its own state ----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, and which run this is."""
        return {"best": self._best_value, "run": self._run}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the checkpoints of a run.

        Args:
            state: what `state_dict` returned.
        """
        self._best_value, self._run = state["best"], state["run"]

    def _load(self, loop: TrainTestLoop) -> None:
        """Give the loop the state to go on from, if there is one."""
        if self.resume == "never":
            return
        if self.resume != "auto":
            self._go_on(loop, Path(self.resume), read(Path(self.resume)))
            return
        corrupt: list[tuple[Path, CorruptError]] = []
        for path in self._store.checkpoints():
            try:
                found = read(path)
            except CorruptError as error:
                corrupt.append((path, error))
                continue
            for bad, why in corrupt:
                aside = self._store.set_aside(bad)
                _log.warning("checkpoint: %s. It is set aside as %s", why, aside.name)
            self._go_on(loop, path, found)
            return
        if corrupt:
            raise CheckpointError(
                f"none of the {len(corrupt)} checkpoints in {self.directory} is whole. The newest: "
                f"{corrupt[0][1]}. To begin anew: use('checkpoint', ..., resume='never')"
            )

    def _go_on(self, loop: TrainTestLoop, path: Path, state: Mapping[str, Any]) -> None:
        loop.load_state_dict(state, ignore=self.ignore)
        self._saved_at = _place(state["position"], loop)
        _log.warning("checkpoint: going on from %s", path)


def _parse_every(every: Any) -> tuple[int | None, int | None, float | None]:
    """Return every how many epochs, steps or seconds; two of them are None."""
    count, unit = every, "step"
    if isinstance(every, str):
        match = re.fullmatch(r"(?:(\d+) )?(epoch|step|minute)s?", every)
        count, unit = (int(match[1] or 1), match[2]) if match else (0, "")
    elif isinstance(every, datetime.timedelta):
        count, unit = every.total_seconds() / 60, "minute"
    if isinstance(count, bool) or not isinstance(count, int | float) or not count > 0:
        count = 0
    if not count or (unit != "minute" and not isinstance(count, int)):
        raise ArgumentError(
            f"every is {every!r}, but has to be 'epoch', a number of steps from 1, a timedelta, or "
            "one such as '2 epochs', '500 steps' or '10 minutes'"
        )
    return (
        int(count) if unit == "epoch" else None,
        int(count) if unit == "step" else None,
        count * 60 if unit == "minute" else None,
    )


def _place(position: Mapping[str, Any], loop: TrainTestLoop) -> object:
    """Return what tells one place in a run from another, in the middle of a run or at its end."""
    is_whole = position["is_trained"] and loop.valid_data is None  # the epoch, but for counting it
    return (
        position["train_num"],
        position["global_step"],
        position["n_epochs_done"] + is_whole,
        position["is_trained"] and not is_whole,
        position["is_stopped"],
    )


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float | str]:
    """Return the metrics that are single numbers, as JSON can hold them."""
    found: dict[str, float | str] = {}
    for name, value in metrics.items():
        if not is_text(name):
            continue
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # of tensors with more
            number = float(value)
            found[name] = number if math.isfinite(number) else str(number)
    return found


def _end(received: signal.Signals) -> NoReturn:
    """End the process as one that a signal has ended."""
    if received == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + received)
