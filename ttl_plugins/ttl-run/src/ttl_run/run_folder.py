"""The component `run-folder`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ttl_core import ArgumentError, LoopComponent, RunError, hookimpl
from ttl_core.arguments import absolute_path, one_of
from ttl_run.folders import RunPlace, fixed_folder, timed_folder
from ttl_run.log_copy import LogCopy
from ttl_run.record import RunRecord
from ttl_run.surroundings import script_name

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_NAME = re.compile(r"\w[\w.+=,@ -]*")  # a part of a path, on every system


class RunFolder(LoopComponent):
    """A folder for all that a run writes, with a record of what ran and how it ended.

    It is `loop.run_folder`, the default for components that have a directory. The record is
    `run.json`; `log.txt` has the log lines of the console. All runs of one loop, as a train() and
    a test(), are one start of the script, and share the folder.

    Args:
        directory: the folder, a fixed one; started again, the script writes there again.
        run_name: the name of the run, to which the time is added, as in
            runs/mnist-20250131-235959. By default it is that of the script. Started again, the
            script continues in the newest folder of the name if its last start has failed, or was
            interrupted, preempted or killed.
        root: the folder of the folders with a name and a time.
        resume: "auto" for that; "never" to make a new folder in any case.

    Raises:
        ArgumentError: an argument has an unusable value, or `directory` is not given alone.

    Attributes:
        folder: the absolute path of the folder; None until the first run begins.

    Example:
        >>> import json, tempfile, torch
        >>> from ttl_core import TrainTestLoop
        >>> loop = TrainTestLoop(torch.nn.Identity(), [RunFolder(tempfile.mkdtemp())], [0, 1])
        >>> loop.train(n_epochs=2)
        >>> record = json.loads((loop.run_folder / "run.json").read_text())
        >>> [(start["ended"], start["epoch"], start["step"]) for start in record["starts"]]
        [('complete', 2, 4)]
    """

    after = "seed"  # so that the record has the seed from the start
    before = "checkpoint"  # which looks for the folder in around_run too
    only_once = True  # loop.run_folder is one

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        run_name: str | None = None,
        root: str | os.PathLike[str] = "runs",
        resume: Literal["auto", "never"] = "auto",
    ) -> None:
        self.resume = one_of("resume", resume, ("auto", "never"))
        if directory is not None and (run_name is not None or resume == "never"):
            raise ArgumentError(
                f"directory is {directory!r}, a fixed folder, but run_name= and resume= are about "
                "folders with a time. Give either directory= or those"
            )
        if run_name is not None and not (isinstance(run_name, str) and _NAME.fullmatch(run_name)):
            raise ArgumentError(
                f"run_name is {run_name!r}, but has to be a part of a path, as 'mnist'. "
                "The folder of the folders is root="
            )
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.root = absolute_path("root", root)
        self.run_name = run_name
        self.folder: Path | None = None
        self._record: RunRecord | None = None
        self._has_failed = False

    def fork(self) -> None:
        """Leave it out of forks of the loop, which write no files."""

    @hookimpl(wrapper=True, tryfirst=True)  # other components look for the folder when a run begins
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Make the folder, and record the start; record how the run has ended.

        Raises:
            RunError: the folder cannot be written to, or another run that is under way has it.
        """
        if not loop.group.is_main:  # the main process writes into it
            loop.run_folder = self.folder = loop.group.broadcast(self.folder)
            return (yield)
        with contextlib.ExitStack() as stack:
            try:
                place = self._claim()
                loop.group.broadcast(place.folder)
                stack.callback(place.lock.release)
                stack.enter_context(LogCopy(place.folder))
                record = self._begin(loop, place.folder)
            except OSError as error:
                raise RunError(
                    f"run-folder: {self.directory or self.root} cannot be written to: {error}. "
                    "Give another directory= or root=, or make that one writable"
                ) from error
            try:
                result = yield
            except BaseException as exception:
                record.end(loop, exception)
                self._has_failed = isinstance(exception, Exception)
                raise
            record.end(loop, None)
            return result

    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> None:
        """Append the traceback to the log, now that the exception says where it was raised."""
        if self._has_failed and self.folder is not None:
            self._has_failed = False
            with contextlib.suppress(OSError), contextlib.closing(LogCopy(self.folder)) as log_copy:
                log_copy.write_failure(exception)

    def _claim(self) -> RunPlace:
        """Return the folder, locked: that of earlier runs of the loop, if there were some."""
        fixed = self.folder or self.directory
        if fixed is not None:
            return fixed_folder(fixed)
        name = self.run_name or script_name()
        return timed_folder(self.root, name, may_continue=self.resume == "auto")

    def _begin(self, loop: TrainTestLoop, folder: Path) -> RunRecord:
        """Set the folder, and record that a run is under way in it."""
        loop.run_folder = self.folder = folder
        if self._record is None:
            self._record = RunRecord(folder)
            if self._record.interrupted:
                _log.warning(
                    "run-folder: continuing in %s, where the last start was not completed (%s)",
                    folder,
                    self._record.interrupted,
                )
            else:
                _log.info("run-folder: %s", folder)
        self._record.begin(loop)
        return self._record
