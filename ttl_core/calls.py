"""One hook's implementations in, one cheap callable out.

A hook is written out as the source of a function with one line for each implementation, as
dataclasses write `__init__`. This is about a fifth faster than a loop over bound methods (each
line is a call site of its own, which CPython specialises for what it calls), it passes each
implementation just the arguments that it names, and a traceback's line number says which
implementation failed without a single instruction spent on it before.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any, Literal

import pluggy

Execute = Callable[[str, Sequence[pluggy.HookImpl], Mapping[str, object], bool], object]
"""pluggy's own way to run implementations (last first), which knows wrappers and monitoring."""

_FIRST_LINE = 3
"""The line of a written function on which the first implementation is called."""

_PLAIN: pluggy.HookimplOpts = {
    "wrapper": False,
    "hookwrapper": False,
    "optionalhook": False,
    "tryfirst": False,
    "trylast": False,
    "specname": None,
}


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec")


def _write(point: str, parameters: str, lines: Sequence[str], names: dict[str, object]) -> Any:
    """Return the function `point` with these lines, which see `names`."""
    source = "\n    ".join([f"def {point}({parameters}):", *lines])
    exec(_compiled(source, f"<ttl {point}>"), names)
    return names[point]


_LINES = {
    # what becomes of the results: the first line, the line of each implementation, the last line
    "dropped": ("pass", "{call}", "pass"),
    "listed": ("_all = []", "if (_ := {call}) is not None: _all.append(_)", "return _all"),
    "first": ("pass", "if (_ := {call}) is not None: return _", "return None"),
}


def flat(
    point: str,
    arguments: Sequence[str],
    implementations: Sequence[pluggy.HookImpl],
    results: Literal["dropped", "listed", "first"],
    keyword_only: bool = False,
) -> Callable[..., Any]:
    """Write a function that calls each implementation in turn.

    Args:
        point: the hook's name.
        arguments: the hook's arguments, in order.
        implementations: none of them a wrapper, in the order in which to call them.
        results: what becomes of what they return.
        keyword_only: whether the function takes its arguments by keyword only.
    """
    first, line, last = _LINES[results]
    calls = (f"_{i}({', '.join(impl.argnames)})" for i, impl in enumerate(implementations))
    names: dict[str, object] = {f"_{i}": impl.function for i, impl in enumerate(implementations)}
    names["__implementations__"] = tuple(implementations)
    parameters = ", ".join(["*", *arguments] if keyword_only else arguments)
    return _write(point, parameters, [first, *(line.format(call=c) for c in calls), last], names)  # type: ignore[no-any-return]


def wrapped(
    point: str,
    arguments: Sequence[str],
    implementations: Sequence[pluggy.HookImpl],
    execute: Execute,
    results: Literal["listed", "first"] = "listed",
    keyword_only: bool = False,
) -> Callable[..., Any]:
    """Write a function that lets pluggy run the wrappers around a flat call of all others.

    Args:
        point: the hook's name.
        arguments: the hook's arguments, in order.
        implementations: wrappers first, outermost first; then the others in order.
        execute: pluggy's way to run them.
        results: what becomes of what the others return.
        keyword_only: whether the function takes its arguments by keyword only.
    """
    wrappers = [impl for impl in implementations if impl.wrapper]
    inner = flat(point, arguments, [i for i in implementations if not i.wrapper], results)
    parameters = ", ".join(["*", *arguments] if keyword_only else arguments)
    given = ", ".join(f"{name!r}: {name}" for name in arguments)
    names = {"_execute": execute, "_methods": _around(inner, wrappers)}
    return _write(  # type: ignore[no-any-return]
        point, parameters, [f"return _execute({point!r}, _methods, {{{given}}}, True)"], names
    )


def surround(
    point: str,
    wrappers: Sequence[pluggy.HookImpl],
    execute: Execute,
    body: Callable[[], object],
    given: Mapping[str, object],
) -> None:
    """Let pluggy run wrappers, outermost first, around `body`.

    Args:
        point: the hook's name.
        wrappers: the wrappers, outermost first.
        execute: pluggy's way to run them.
        body: what they surround.
        given: the hook's arguments by name.
    """
    if wrappers:
        execute(point, _around(body, wrappers), given, True)
    else:
        body()


def direct(
    point: str, arguments: Sequence[str], implementations: Sequence[pluggy.HookImpl]
) -> Callable[..., Any] | None:
    """Return the one implementation itself, where calling it needs nothing around it.

    The function's own name has to be the point's: only then does a frame of it in a traceback
    say which point was called (one decorator's frames look the same at every point).
    """
    match implementations:
        case [impl] if impl.argnames == tuple(arguments) and not impl.wrapper:
            code = getattr(impl.function, "__code__", None)
            if code is not None and code.co_name == point:
                return impl.function
    return None


def _around(
    inner: Callable[..., Any], wrappers: Sequence[pluggy.HookImpl]
) -> list[pluggy.HookImpl]:
    """Return `inner` and the wrappers in the order that pluggy wants: last called first."""
    return [pluggy.HookImpl(None, "ttl", inner, _PLAIN), *reversed(wrappers)]


def running(
    frame: FrameType, line: int, implementations: Sequence[pluggy.HookImpl]
) -> pluggy.HookImpl | None:
    """Return which of `implementations` a frame of a traceback runs, or is about to call.

    Args:
        frame: the frame.
        line: its line, as the traceback has it (the frame itself may have gone on since).
        implementations: all of a loop's; where several share one code, the first one wins.
    """
    code = frame.f_code
    if code.co_filename.startswith("<ttl "):
        written = frame.f_globals.get("__implementations__", ())
        index = line - _FIRST_LINE
        called = written[index] if 0 <= index < len(written) else None
        return next((impl for impl in implementations if impl is called), None)
    if code.co_name == "_raise_wrapfail":  # pluggy: a wrapper that yields never, or twice
        code = getattr(frame.f_locals.get("wrap_controller"), "gi_code", code)
    for impl in implementations:
        if getattr(inspect.unwrap(impl.function), "__code__", None) is code:
            owner = getattr(impl.function, "__self__", None)
            first = next(iter(code.co_varnames[: code.co_argcount]), None)
            if owner is None or frame.f_locals.get(first or "", owner) is owner:
                return impl
    return None
