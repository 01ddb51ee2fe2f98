"""The runs of a loop: what ran when, and how it ended."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

Status = Literal["running", "complete", "stopped", "failed", "preempted", "interrupted"]

_SIGNALS = {128 + signal: signal.name for signal in signal.Signals}
"""The signals by the exit status of a process that one of them has ended."""

_MAX_REASON = 10_000  # characters; some errors of compilers are longer than the whole page


@dataclass
class Run:
    """One call of train(), validate(), test() or predict().

    Attributes:
        phase: the phase of its first epoch, "" before that.
        started: when it began, in seconds since 1970.
        ended: when it ended; None if it is running, or if that is not known.
        status: how it ended.
        reason: why it stopped or failed; "" where that is not known.
    """

    phase: str = ""
    started: float = field(default_factory=time.time)
    ended: float | None = None
    status: Status = "running"
    reason: str = ""

    def end(self, status: Status, reason: str = "") -> None:
        """Record how the run ended."""
        self.ended = time.time()
        self.status = status
        self.reason = reason[:_MAX_REASON]

    def fail(self, exception: BaseException) -> None:
        """Record the exception with which the run ended, and the notes on it.

        Args:
            exception: the exception; one that is no Exception preempts or interrupts the run.
        """
        text = "".join(traceback.format_exception_only(exception)).strip()
        if isinstance(exception, Exception):
            self.end("failed", text)
        elif isinstance(exception, SystemExit) and exception.code in _SIGNALS:
            self.end("preempted", f"{_SIGNALS[exception.code]}: {text}")
        else:
            self.end("interrupted", text)


class Runs:
    """The runs of a loop so far, also those of processes before a resumption."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def begin(self) -> Run:
        """Begin another run and return it."""
        self._runs.append(Run())
        return self._runs[-1]

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the runs as data that JSON can hold."""
        return [asdict(run) for run in self._runs]

    def load_state_dict(
        self, state: Iterable[Mapping[str, Any]], page: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Put the runs of a state before the one that is under way, which resumes them.

        Args:
            state: what `state_dict()` returned.
            page: the runs in the page of the process that has taken the state. They say how those
                ended that were running then, and which came after, as a test.
        """
        earlier = {values["started"]: Run(**values) for values in state}
        known = [Run(**values) for values in page]
        if known and known[0].started in earlier:  # else it is the page of other runs
            earlier |= {run.started: run for run in known if run.status != "running"}
        current = [run for run in self._runs if run.status == "running"]
        for run in current:
            earlier.pop(run.started, None)  # it went back to an earlier state of itself
        for run in earlier.values():
            if run.status == "running":  # when the state was taken
                run.status = "interrupted"
        self._runs = [*earlier.values(), *current]


def cause_of_stop(loop: TrainTestLoop) -> str:
    """Return which component has stopped a run, and why; "" where that is not known."""
    return ": ".join(filter(None, loop.stopped_by or ()))
