"""The operators in a profile, those that take longest first."""

from __future__ import annotations

from typing import Any

from torch.profiler import profile

_N_NAMED = 3  # in a log line


def operator_table(recorded: profile, n_rows: int, *, by_shape: bool) -> str:
    """Return a table of the operators that take longest by themselves.

    Args:
        recorded: the profile.
        n_rows: how many rows it has.
        by_shape: whether calls with other shapes of inputs have a row of their own.
    """
    averages: Any = recorded.key_averages(group_by_input_shape=by_shape)
    key = f"self_{_clock(averages)}_time_total"
    return str(averages.table(sort_by=key, row_limit=n_rows)) + "\n"


def slowest_operators(recorded: profile) -> str:
    """Return the names of the operators that take longest by themselves, with their shares."""
    averages: Any = recorded.key_averages()
    key = f"self_{_clock(averages)}_time_total"
    times = {event.key: getattr(event, key) for event in averages}
    total = sum(times.values()) or 1
    slowest = sorted(times, key=lambda name: -times[name])[:_N_NAMED]
    return ", ".join(f"{name} {times[name] / total:.0%}" for name in slowest)


def _clock(averages: Any) -> str:
    """Return which time matters: that of the device, if one was used, else that of the CPU."""
    return "device" if any(event.self_device_time_total for event in averages) else "cpu"
