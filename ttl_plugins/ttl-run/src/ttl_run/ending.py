"""How a run has ended: what its record says about it."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


def end_of(loop: TrainTestLoop, exception: BaseException | None) -> dict[str, Any]:
    """Return how a run has ended.

    Args:
        loop: the loop.
        exception: what the run ends with; None if it is nothing.

    Returns:
        "ended" is "complete", "stopped", "failed", "preempted" or "interrupted"; "stopped_by",
        "signal" and "exception" say more.
    """
    details: dict[str, Any] = {"ended": "complete"}
    if exception is None and loop.is_stopped:
        cause = loop.stopped_by
        details = {"ended": "stopped", "stopped_by": cause and cause._asdict()}
    elif isinstance(exception, Exception):
        details = {"ended": "failed", "exception": _described(exception)}
    elif isinstance(exception, SystemExit) and (name := _signal_of(exception)):
        details = {"ended": "preempted", "signal": name}
    elif exception is not None:
        details = {"ended": "interrupted", "exception": _described(exception)}
    return {**details, "epoch": loop.epoch_num, "step": loop.global_step}


def _signal_of(exit_: SystemExit) -> str | None:
    """Return the signal that a process was ended by, as its exit status tells."""
    with contextlib.suppress(ValueError, TypeError):
        return signal.Signals(exit_.code - 128).name  # type: ignore[operator]
    return None


def _described(exception: BaseException) -> str:
    text = str(exception)
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__
