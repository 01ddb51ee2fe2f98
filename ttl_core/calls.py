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
from typing import Any, Literal, NamedTuple, cast

import pluggy

Execute = Callable[[str, Sequence[pluggy.HookImpl], Mapping[str, object], bool], object]
"""pluggy's own way to run implementations (last first), which knows wrappers and monitoring."""

_FIRST_LINE = 3
"""The line of a written function on which the first implementation is called."""

NO_OPTIONS: pluggy.HookimplOpts = {
    "wrapper": False,
    "hookwrapper": False,
    "optionalhook": False,
    "tryfirst": False,
    "trylast": False,
    "specname": None,
}
"""pluggy's options for a hook method that is not marked."""


@functools.lru_cache(maxsize=1024)
def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec")


_LINES = {
    # what becomes of the results: the first line, the line of each implementation, the last line
    "dropped": ("pass", "{call}", "pass"),
    "listed": ("_all = []", "if (_ := {call}) is not None: _all.append(_)", "return _all"),
    "first": ("pass", "if (_ := {call}) is not None: return _", "return None"),
}


class Hook(NamedTuple):
    """Describe the callable that a hook shall become.

    Attributes:
        point: its name.
        arguments: its arguments, in order, but for those with a default value.
        defaults: those with one.
        results: what becomes of what the implementations return.
        keyword_only: whether it takes its arguments by keyword only.
    """

    point: str
    arguments: Sequence[str]
    defaults: Mapping[str, object]
    results: Literal["dropped", "listed", "first"]
    keyword_only: bool

    def write(self, lines: Sequence[str], names: dict[str, object]) -> Callable[..., Any]:
        """Return a function of these lines, which see `names`."""
        star = ["*"] if self.keyword_only else []
        names["_defaults"] = self.defaults
        names["__name__"] = __name__  # for warnings, which look for the user's own frame
        optional = [f"{name}=_defaults[{name!r}]" for name in self.defaults]
        parameters = ", ".join([*star, *self.arguments, *optional])
        source = "\n    ".join([f"def {self.point}({parameters}):", *lines])
        exec(_compiled(source, f"<ttl {self.point}>"), names)
        return cast(Callable[..., Any], names[self.point])


def flat(hook: Hook, implementations: Sequence[pluggy.HookImpl]) -> Callable[..., Any]:
    """Write a function that calls each implementation in turn, none of them a wrapper."""
    first, line, last = _LINES[hook.results]
    called = (f"_{i}({', '.join(impl.argnames)})" for i, impl in enumerate(implementations))
    names: dict[str, object] = {f"_{i}": impl.function for i, impl in enumerate(implementations)}
    names["__implementations__"] = tuple(implementations)
    return hook.write([first, *(line.format(call=call) for call in called), last], names)


def wrapped(
    hook: Hook, implementations: Sequence[pluggy.HookImpl], execute: Execute
) -> Callable[..., Any]:
    """Write a function that lets pluggy run the wrappers around a flat call of all others.

    Args:
        hook: the callable to be.
        implementations: wrappers first, outermost first; then the others in order.
        execute: pluggy's way to run them.
    """
    wrappers = [impl for impl in implementations if impl.wrapper]
    others = [impl for impl in implementations if not impl.wrapper]
    arguments = [*hook.arguments, *hook.defaults]
    inner = Hook(
        hook.point,
        arguments,
        defaults={},
        results="first" if hook.results == "first" else "listed",
        keyword_only=False,
    )
    given = ", ".join(f"{name!r}: {name}" for name in arguments)
    call = f"return _execute({hook.point!r}, _methods, {{{given}}}, True)"
    return hook.write(
        [call], {"_execute": execute, "_methods": _around(flat(inner, others), wrappers)}
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
    execute(point, _around(body, wrappers), given, True)


def nothing(_loop: object, *_: object) -> None:
    """Be the hook that nobody implements."""


def direct(hook: Hook, implementations: Sequence[pluggy.HookImpl]) -> Callable[..., Any] | None:
    """Return the one implementation itself, where calling it needs nothing around it.

    The function's own name has to be the point's: only then does a frame of it in a traceback
    say which point was called (one decorator's frames look the same at every point).
    """
    match implementations:
        case [impl] if hook.results == "dropped" and impl.argnames == tuple(hook.arguments):
            code = getattr(impl.function, "__code__", None)
            if code is not None and code.co_name == hook.point:
                return impl.function
    return None


def _around(
    inner: Callable[..., Any], wrappers: Sequence[pluggy.HookImpl]
) -> list[pluggy.HookImpl]:
    """Return `inner` and the wrappers in the order that pluggy wants: last called first."""
    return [pluggy.HookImpl(None, "ttl", inner, NO_OPTIONS), *reversed(wrappers)]


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
