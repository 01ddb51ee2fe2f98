"""How long the epochs of each phase take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class PhaseTime:
    """The time that a phase has taken.

    Attributes:
        epochs: how many epochs ended.
        batches: how many batches they had.
        seconds: how long they took, and those that did not end, without epochs inside them.
    """

    epochs: int = 0
    batches: int = 0
    seconds: float = 0.0


class PhaseTimes:
    """The time of each phase; a validation in mid-epoch counts as its own phase only."""

    def __init__(self) -> None:
        self._times: dict[str, PhaseTime] = {}
        self._open: list[str] = []  # the phases under way, outermost first
        self._since = 0.0  # until when the time is accounted for

    def begin(self, phase: str) -> None:
        """Begin an epoch.

        Args:
            phase: the phase, with the name of the data set if it has one, as "valid/easy".
        """
        self._account()
        self._open.append(phase)

    def end(self, n_batches: int | None) -> None:
        """End the innermost epoch.

        Args:
            n_batches: how many batches it had; None if it did not come to its end.
        """
        self._account()
        time_of_phase = self._time(self._open.pop())
        if n_batches is not None:
            time_of_phase.epochs += 1
            time_of_phase.batches += n_batches

    def _account(self) -> None:
        """Add the time since the last call to the innermost phase under way."""
        now = time.monotonic()
        if self._open:
            self._time(self._open[-1]).seconds += now - self._since
        self._since = now

    def _time(self, phase: str) -> PhaseTime:
        return self._times.setdefault(phase, PhaseTime())

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the times by phase so far, as data that JSON can hold."""
        self._account()
        return {phase: asdict(time_of_phase) for phase, time_of_phase in self._times.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the times; epochs under way count from now.

        Args:
            state: what `state_dict()` returned.
        """
        self._times = {phase: PhaseTime(**values) for phase, values in state.items()}
        self._since = time.monotonic()
