"""The component `profiler`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.profiler import profile, schedule

from ttl_core import LoopComponent, RunError, hookimpl
from ttl_core.arguments import (
    absolute_path,
    directory_or_run_folder,
    flag,
    user_stacklevel,
    whole_number,
)
from ttl_core.files import DirectoryLock, claim_directory
from ttl_profile.operators import operator_table, slowest_operators

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_SUBFOLDER = "profile"  # of the folder of the run

_running: list[Profiler] = []
"""The one that has started a profile: torch ends the process where a second one does."""


class Profiler(LoopComponent):
    """A profile of some training batches, by torch.profiler: a trace, and a table of operators.

    Each cycle waits, warms up, and then records; a batch is a step of it, with the loading of the
    next one. Recorded cycles are written as trace-<first>-<last>.json, for chrome://tracing or
    https://ui.perfetto.dev, and operators-<first>-<last>.txt, by the numbers of their batches.

    Args:
        directory: where they are written; by default the folder `profile` in the folder of the
            run, which the component `run-folder` makes.
        wait: how many batches of each cycle are not observed.
        warmup: how many are then observed, but not recorded: the first ones take longer.
        active: how many are then recorded.
        repeat: how many cycles there are; 0 for as many as there are batches.
        skip_first: how many batches there are before the first cycle.
        memory: whether to record allocations.
        shapes: whether to record the shapes of inputs, by which the table is then grouped.
        stack: whether to record source lines.
        flops: whether to estimate FLOPs of matrix products and convolutions.
        n_rows: how many operators the table has.

    Raises:
        ArgumentError: an argument has an unusable value.
        RunError: when training begins, another one has not ended, of which torch has one at a
            time, or another run writes to the directory.

    Attributes:
        traces: the paths of the traces that were written, in order.

    Example:
        >>> import tempfile
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> profiler = Profiler(tempfile.mkdtemp(), wait=1, warmup=1, active=2)
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), profiler],
        ...                      ComponentConformance.make_data(n_batches=5))
        >>> loop.train(n_epochs=1)
        >>> [path.name for path in profiler.traces]
        ['trace-2-3.json']
    """

    main_only = True

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        wait: int = 5,
        warmup: int = 2,
        active: int = 3,
        repeat: int = 1,
        skip_first: int = 0,
        memory: bool = False,
        shapes: bool = False,
        stack: bool = False,
        flops: bool = False,
        n_rows: int = 20,
    ) -> None:
        self.directory = None if directory is None else absolute_path("directory", directory)
        self.wait = whole_number("wait", wait)
        self.warmup = whole_number("warmup", warmup)
        self.active = whole_number("active", active, at_least=1)
        self.repeat = whole_number("repeat", repeat)
        self.skip_first = whole_number("skip_first", skip_first)
        self.memory = flag("memory", memory)
        self.shapes = flag("shapes", shapes)
        self.stack = flag("stack", stack)
        self.flops = flag("flops", flops)
        self.n_rows = whole_number("n_rows", n_rows, at_least=1)
        self.traces: list[Path] = []
        self._profile: profile | None = None
        self._n_batches = 0  # that have ended since the profile was started
        self._n_cycles = 0  # that have been recorded since then
        self._folder = Path()
        self._lock: DirectoryLock | None = None

    def fork(self) -> None:
        """Leave it out of forks of the loop, which write no files."""

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Write what is being recorded, however the run ends."""
        try:
            return (yield)
        finally:
            self._stop()
            if self._lock is not None:
                self._lock.release()

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Start the profile."""
        if _running:
            raise RunError(
                "profiler: another profiler has not ended in this process, and torch has one at a "
                "time. Remove one of them from the list, or disable it"
            )
        self._folder = directory_or_run_folder(
            self.directory, loop, "profiler", subfolder=_SUBFOLDER
        )
        self._lock = claim_directory("profiler", self._folder)
        self._n_batches = self._n_cycles = 0
        self._profile = profile(
            schedule=schedule(
                wait=self.wait,
                warmup=self.warmup,
                active=self.active,
                repeat=self.repeat,
                skip_first=self.skip_first,
            ),
            on_trace_ready=self._write,
            record_shapes=self.shapes,
            profile_memory=self.memory,
            with_stack=self.stack,
            with_flops=self.flops,
            acc_events=True,
        )
        _running.append(self)
        self._profile.start()

    @hookimpl(trylast=True)
    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Begin the next step of the schedule; after the last cycle, end the profile."""
        if self._profile is not None and loop.is_training:
            self._n_batches += 1
            self._profile.step()
            if self._n_cycles == self.repeat > 0:
                self._stop()

    @property
    def _cycle(self) -> int:
        """The number of batches in a cycle."""
        return self.wait + self.warmup + self.active

    def _stop(self) -> None:
        if self._profile is not None:
            profile_, self._profile = self._profile, None
            _running.remove(self)
            profile_.stop()

    def _write(self, recorded: profile) -> None:
        """Write the trace and the table; where that fails, training continues."""
        first = self.skip_first + self._n_cycles * self._cycle + self.wait + self.warmup
        last = max(self._n_batches - 1, first)  # the first one itself may be incomplete
        self._n_cycles += 1
        name = f"{first}-{last}"
        trace = self._folder / f"trace-{name}.json"
        table = operator_table(recorded, self.n_rows, by_shape=self.shapes)
        try:
            recorded.export_chrome_trace(str(trace))
            (self._folder / f"operators-{name}.txt").write_text(table, encoding="utf-8")
        except (OSError, RuntimeError) as error:
            warnings.warn(
                f"profiler: {trace} cannot be written: {error}. Training continues without it",
                UserWarning,
                stacklevel=user_stacklevel(),
            )
            return
        self.traces.append(trace)
        _log.info(
            "profiler: batches %s: %s. %s has the trace",
            name,
            slowest_operators(recorded),
            trace,
        )
