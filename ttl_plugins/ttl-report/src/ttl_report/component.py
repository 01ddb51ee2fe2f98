"""The component `report`: what it records of a run, and when it writes its page."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttl_core import Logger, LogRecord, hookimpl
from ttl_core.arguments import absolute_path, directory_or_run_folder
from ttl_report.environment import describe_environment
from ttl_report.page import PageError, read, write
from ttl_report.phase_times import PhaseTimes
from ttl_report.pictures import pictures_in
from ttl_report.report import make_document, render_report
from ttl_report.runs import Run, Runs, cause_of_stop
from ttl_report.series import Curves

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)

FILE = "report.html"

_MAX_SHARE = 0.05  # of the time, for writing pages: epochs may be shorter than that takes


class Report(Logger):
    """A report of a run: one HTML page with its curves, best values, times, and what ran where.

    It is written at the end of each epoch, and when a run ends, fails or is interrupted. The page
    needs no network and no other file. It shows the PNG files in its folder too.

    Args:
        directory: the folder of `report.html`; that of the run by default.
        every: record the values of batches at each so many steps.

    Raises:
        ArgumentError: an argument has an unusable value.

    Attributes:
        path: the file, once a run has begun; None before.
    """

    path: Path | None

    def __init__(self, *, directory: str | os.PathLike[str] | None = None, every: int = 1) -> None:
        super().__init__(every=every)
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.path = None
        self._curves = Curves()
        self._times = PhaseTimes()
        self._runs = Runs()
        self._data_names: list[str] = []  # of validation sets
        self._run = Run()
        self._ended_phase = ""  # of the epoch that has ended last
        self._next_page = 0.0  # a value of time.monotonic()
        self._has_warned = False
        self._environment: dict[str, str] = {}

    # -- runs -------------------------------------------------------------------------------

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Record the run and how it ends, and write the page then."""
        self.path, self._next_page = None, 0.0
        self._run = self._runs.begin()
        was_stopped = loop.is_stopped  # an earlier train(), before a test()
        try:
            result = yield from super().around_run(loop)
        except BaseException as exception:
            self._run.fail(exception)
            raise
        else:
            if loop.is_stopped and not was_stopped:
                self._run.end("stopped", cause_of_stop(loop))
            else:
                self._run.end("complete")
            return result
        finally:
            self._write_page(loop)

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Find the folder before there is anything to lose.

        Raises:
            ArgumentError: there is none, or it cannot be written to.
            RunError: another run writes there.
        """
        self._prepare(loop, "train")

    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Write what the run has failed with, including the notes that it has by now."""
        self._run.fail(exception)
        self._write_page(loop)

    def _prepare(self, loop: TrainTestLoop, phase: str) -> None:
        """Find the folder once a run, when a component before this one may have created it."""
        if self.path is None:
            directory = directory_or_run_folder(self.directory, loop, "report")
            self.claim_directory("report", directory)
            self.path = directory / FILE
            self._run.phase = phase
            self._environment = self._environment or describe_environment()

    # -- epochs -----------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)  # outermost, so that the time includes other wrappers
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Measure the time of the epoch."""
        phase, name = loop.epoch_desc, loop.data_name
        self._prepare(loop, phase)
        if name is not None and name not in self._data_names:
            self._data_names.append(name)
        self._times.begin(phase if name is None else f"{phase}/{name}")
        n_batches = None
        try:
            result = yield
            n_batches = loop.batch_num + 1
            return result
        finally:
            self._times.end(n_batches)
            self._ended_phase = phase

    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Write the page when an epoch and its validation have ended."""
        if loop.is_training or (loop.valid_data is not None and self._ended_phase == "train"):
            return
        if time.monotonic() >= self._next_page:
            self.flush()
            self._write_page(loop)

    # -- what is logged ---------------------------------------------------------------------

    def write(self, records: Sequence[LogRecord]) -> None:
        """Add values to their curves."""
        in_training = self._run.phase == "train"
        logged: dict[str, dict[str, list[tuple[float, int, int]]]] = {
            level: defaultdict(list) for level in ("batch", "epoch")
        }
        for record in records:
            of_level, step = logged[record.level], record.step
            epoch = record.epoch + in_training  # how many have begun, which is how people count
            for name, value in record.values.items():
                of_level[name].append((value, step, epoch))
            for name in record.others:
                self.skip(name, "a report shows single numbers only")
        for level, of_level in logged.items():
            for name, values in of_level.items():
                self._curves.extend(name, level, values)

    def position(self) -> dict[str, Any]:
        """Return all that was recorded."""
        return {
            "curves": self._curves.state_dict(),
            "times": self._times.state_dict(),
            "runs": self._runs.state_dict(),
            "data_names": list(self._data_names),
        }

    def seek(self, position: dict[str, Any]) -> None:
        """Go back to what was recorded then; the run that is under way stays.

        Args:
            position: what `position()` returned.
        """
        self._curves.load_state_dict(position["curves"])
        self._times.load_state_dict(position["times"])
        self._runs.load_state_dict(position["runs"], self._runs_in_page())
        self._data_names = list(position["data_names"])

    # -- the page ---------------------------------------------------------------------------

    def _runs_in_page(self) -> list[dict[str, Any]]:
        """Return the runs in the page that is there, if any."""
        if self.path is not None:
            with contextlib.suppress(OSError, PageError):
                return list(read(self.path)["runs"])
        return []

    def _write_page(self, loop: TrainTestLoop) -> None:
        """Write the page; training continues where that fails, and it is tried again later."""
        if self.path is None:  # the run has ended before it began
            return
        started = time.monotonic()
        document = make_document(
            self.path.parent.name,
            runs=self._runs.state_dict(),
            position={"epochs": loop.epoch_num, "steps": loop.global_step},
            series=self._curves,
            data_names=self._data_names,
            phases=self._times.state_dict(),
            components=loop.manifest(),
            environment=self._environment,
        )
        try:
            write(self.path, render_report(document, pictures_in(self.path.parent)))
        except OSError as error:
            if not self._has_warned:
                _log.warning(
                    "report: the page cannot be written: %s. Training continues, and it is tried "
                    "again",
                    error,
                )
            self._has_warned = True
        else:
            self._has_warned = False
        now = time.monotonic()
        self._next_page = now + (now - started) / _MAX_SHARE
