"""The trace of hook calls that `TTL_TRACE=1` prints."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable


def is_tracing() -> bool:
    """Return whether the environment asks for a trace."""
    return os.environ.get("TTL_TRACE") == "1"


def tracers() -> tuple[Callable[..., None], Callable[..., None]]:
    """Return what pluggy calls before and after each hook call to print it, nested, with time."""
    started: list[float] = []
    is_open = False  # whether the newest line still waits for its time

    def before(point: str, *_: object) -> None:
        nonlocal is_open
        if is_open:
            print(file=sys.stderr)
        print(f"{'  ' * len(started)}{point}", end="", file=sys.stderr, flush=True)
        is_open = True
        started.append(time.perf_counter())

    def after(_outcome: object, point: str, *_: object) -> None:
        nonlocal is_open
        took = f"{(time.perf_counter() - started.pop()) * 1e3:.3f} ms"
        indent = "" if is_open else "  " * len(started) + f"{point} took"
        print(f"{indent} {took}", file=sys.stderr, flush=True)
        is_open = False

    return before, after
