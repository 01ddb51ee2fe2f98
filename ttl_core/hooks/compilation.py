"""Compilation of a hook: its implementations in, one callable out.

A hook is written out as the source of a function with one line for each implementation, as
dataclasses write `__init__`. That is about a fifth faster than a loop over bound methods (each
line is a call site of its own, which CPython specialises for what it calls), it passes to each
implementation just the arguments that it names, and the line number in a traceback tells which
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
"""pluggy's own way to run implementations (last one first), with wrappers and monitoring."""

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
    # for each use of the results: the first line, the line of each implementation, the last line;
    # {p} is a prefix that no argument has
    "dropped": ("pass", "{call}", "pass"),
    "listed": (
        "{p}results = []",
        "if ({p}result := {call}) is not None: {p}results.append({p}result)",
        "return {p}results",
    ),
    "first": ("pass", "if ({p}result := {call}) is not None: return {p}result", "return None"),
}


class Signature(NamedTuple):
    """How the callable of a hook is called, and what it returns.

    Attributes:
        point: the name of the callback point.
        arguments: its arguments without a default value, in order.
        defaults: the other arguments, with their default values.
        results: what becomes of the results of the implementations.
        keyword_only: whether arguments are passed by keyword only.
    """

    point: str
    arguments: Sequence[str]
    defaults: Mapping[str, object]
    results: Literal["dropped", "listed", "first"]
    keyword_only: bool

    @property
    def prefix(self) -> str:
        """The prefix of the other names in the function, which no argument has."""
        prefix = "_"
        while any(name.startswith(prefix) for name in [*self.arguments, *self.defaults]):
            prefix += "_"
        return prefix

    def write(self, lines: Sequence[str], names: dict[str, object]) -> Callable[..., Any]:
        """Return a function with these lines as its body, in which `names` are defined."""
        star = ["*"] if self.keyword_only else []
        defaults = f"{self.prefix}defaults"
        names[defaults] = self.defaults
        names["__name__"] = __name__  # for warnings, which skip the frames of this package
        optional = [f"{name}={defaults}[{name!r}]" for name in self.defaults]
        parameters = ", ".join([*star, *self.arguments, *optional])
        source = "\n    ".join([f"def {self.point}({parameters}):", *lines])
        exec(_compiled(source, f"<ttl {self.point}>"), names)
        return cast(Callable[..., Any], names[self.point])


def noop(_loop: object, *_: object) -> None:
    """Do nothing: the callable of a hook without implementations."""


def compile_single(
    signature: Signature, implementations: Sequence[pluggy.HookImpl]
) -> Callable[..., Any] | None:
    """Return the only implementation itself, or None where a call of it needs code around it.

    The function's own name has to be the point's: only then does a frame of it in a traceback
    tell which point was called (the frames of one decorator look the same at every point).
    """
    match implementations:
        case [impl] if signature.results == "dropped":
            code = getattr(impl.function, "__code__", None)
            is_called_alike = impl.argnames == tuple(signature.arguments)
            if is_called_alike and code is not None and code.co_name == signature.point:
                return impl.function
    return None


def compile_plain(
    signature: Signature, implementations: Sequence[pluggy.HookImpl]
) -> Callable[..., Any]:
    """Write a function that calls each implementation in turn, none of which is a wrapper."""
    first, line, last = _LINES[signature.results]
    p = signature.prefix
    names: dict[str, object] = {f"{p}{i}": impl.function for i, impl in enumerate(implementations)}
    calls = (f"{p}{i}({', '.join(impl.argnames)})" for i, impl in enumerate(implementations))
    lines = [first.format(p=p), *(line.format(p=p, call=call) for call in calls), last.format(p=p)]
    names["__implementations__"] = tuple(implementations)
    return signature.write(lines, names)


def compile_wrapped(
    signature: Signature, implementations: Sequence[pluggy.HookImpl], execute: Execute
) -> Callable[..., Any]:
    """Write a function with which pluggy runs the wrappers around a plain call of the others.

    Args:
        signature: how the function is called.
        implementations: wrappers first, outermost first; then the others in order.
        execute: pluggy's way to run them.
    """
    wrappers = [impl for impl in implementations if impl.wrapper]
    others = [impl for impl in implementations if not impl.wrapper]
    arguments = [*signature.arguments, *signature.defaults]
    inner = Signature(
        signature.point,
        arguments,
        defaults={},
        results="first" if signature.results == "first" else "listed",
        keyword_only=False,
    )
    given = ", ".join(f"{name!r}: {name}" for name in arguments)
    p = signature.prefix
    call = f"return {p}execute({signature.point!r}, {p}methods, {{{given}}}, True)"
    methods = _in_pluggy_order(compile_plain(inner, others), wrappers)
    return signature.write([call], {f"{p}execute": execute, f"{p}methods": methods})


def call_around(
    point: str,
    wrappers: Sequence[pluggy.HookImpl],
    execute: Execute,
    body: Callable[[], object],
    given: Mapping[str, object],
) -> None:
    """Let pluggy run wrappers around `body`.

    Args:
        point: the name of the callback point.
        wrappers: the wrappers, outermost first.
        execute: pluggy's way to run them.
        body: what they surround.
        given: the arguments of the point by name.
    """
    execute(point, _in_pluggy_order(body, wrappers), given, True)


def _in_pluggy_order(
    inner: Callable[..., Any], wrappers: Sequence[pluggy.HookImpl]
) -> list[pluggy.HookImpl]:
    """Return `inner` and the wrappers in pluggy's order, in which the last one is called first."""
    return [pluggy.HookImpl(None, "ttl", inner, NO_OPTIONS), *reversed(wrappers)]


def find_running(
    frame: FrameType, line: int, implementations: Sequence[pluggy.HookImpl]
) -> pluggy.HookImpl | None:
    """Return the implementation that a frame runs, or is about to call, if it is one of some.

    Args:
        frame: the frame.
        line: its line as a traceback has it, as the frame itself may have continued since.
        implementations: all of a loop's; where several share one code, the first one is returned.
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
