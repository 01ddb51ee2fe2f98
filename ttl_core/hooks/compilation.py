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

from ttl_core.hooks.wrappers import (
    check_has_run,
    fail_second_yield,
    fail_without_yield,
    find_driven,
    unwind,
)

Execute = Callable[[str, Sequence[pluggy.HookImpl], Mapping[str, object], bool], object]
"""pluggy's own way to call implementations (last one first), with monitoring."""

Results = Literal["dropped", "listed", "first", "checked"]
"""What becomes of the results of implementations; "checked" is listed, if all of them have run."""

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


class Line(NamedTuple):
    """A line of a function, and the implementation that it calls, if it calls one."""

    text: str
    impl: pluggy.HookImpl | None = None


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
    results: Results
    keyword_only: bool

    @property
    def prefix(self) -> str:
        """The prefix of the other names in the function, which no argument has."""
        prefix = "_"
        while any(name.startswith(prefix) for name in [*self.arguments, *self.defaults]):
            prefix += "_"
        return prefix

    def write(self, lines: Sequence[Line], names: dict[str, object]) -> Callable[..., Any]:
        """Return a function with these lines as its body, in which `names` are defined."""
        star = ["*"] if self.keyword_only else []
        defaults = f"{self.prefix}defaults"
        names[defaults] = self.defaults
        names["__name__"] = __name__  # for warnings, which skip the frames of this package
        # by line number; the head of the function is line 1
        names["__implementations__"] = {i: line.impl for i, line in enumerate(lines, 2)}
        optional = [f"{name}={defaults}[{name!r}]" for name in self.defaults]
        parameters = ", ".join([*star, *self.arguments, *optional])
        head = f"def {self.point}({parameters}):"
        source = "\n    ".join([head, *(line.text for line in lines)])
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
    names: dict[str, object] = {}
    first, calls, last = _body(signature, signature.results, implementations, names)
    return signature.write([first, *calls, last], names)


def compile_wrapped(
    signature: Signature, implementations: Sequence[pluggy.HookImpl]
) -> Callable[..., Any]:
    """Write a function that enters wrappers, calls the others, and leaves the wrappers in reverse.

    Args:
        signature: how the function is called.
        implementations: wrappers first, outermost first; then the others in order.
    """
    wrappers = [impl for impl in implementations if impl.wrapper]
    others = [impl for impl in implementations if not impl.wrapper]
    names: dict[str, object] = {}
    # wrappers are given all results, also where the caller of the hook drops them
    results: Results = "listed" if signature.results == "dropped" else signature.results
    first, calls, _ = _body(signature, results, others, names)
    return _write_wrapped(signature, wrappers, [first, *calls], names)


def compile_around(
    point: str, arguments: Sequence[str], wrappers: Sequence[pluggy.HookImpl]
) -> Callable[..., Any]:
    """Write a function of some arguments and a body, which calls the body inside wrappers.

    Args:
        point: the name of the callback point.
        arguments: its arguments.
        wrappers: the wrappers, outermost first.
    """
    signature = Signature(point, (*arguments, "body"), {}, results="dropped", keyword_only=False)
    lines = [Line(f"{signature.prefix}results = []"), Line("body()")]
    return _write_wrapped(signature, wrappers, lines, {})


def compile_traced(
    signature: Signature, implementations: Sequence[pluggy.HookImpl], execute: Execute
) -> Callable[..., Any]:
    """Write a function with which pluggy calls all implementations, for its monitoring.

    Args:
        signature: how the function is called.
        implementations: the implementations in call order, wrappers first.
        execute: pluggy's way to call them.
    """
    p = signature.prefix
    given = ", ".join(f"{n!r}: {n}" for n in [*signature.arguments, *signature.defaults])
    is_first = signature.results == "first"
    line = Line(f"return {p}execute({signature.point!r}, {p}methods, {{{given}}}, {is_first})")
    names = {f"{p}execute": execute, f"{p}methods": list(reversed(implementations))}
    return signature.write([line], names)


def traced_around(
    point: str, wrappers: Sequence[pluggy.HookImpl], execute: Execute
) -> Callable[..., Any]:
    """Return what `compile_around` does, as a function with which pluggy runs the wrappers."""

    def call(*arguments: object) -> None:
        *given, body = arguments
        inner = pluggy.HookImpl(None, "ttl", cast(Callable[[], object], body), NO_OPTIONS)
        names = ("loop", "exception")
        execute(point, [inner, *reversed(wrappers)], dict(zip(names, given, strict=False)), True)

    return call


def _body(
    signature: Signature,
    results: Results,
    implementations: Sequence[pluggy.HookImpl],
    names: dict[str, object],
) -> tuple[Line, list[Line], Line]:
    """Return the first line, the line of each call, and the last line of a function."""
    p = signature.prefix
    call = f"{p}check({{call}})" if results == "checked" else "{call}"
    listed = (
        f"{p}results = []",
        f"if ({p}result := {call}) is not None: {p}results.append({p}result)",
        f"return {p}results",
    )
    first, template, last = {
        "dropped": ("pass", "{call}", "pass"),
        "listed": listed,
        "checked": listed,
        "first": (
            f"{p}results = None",
            f"if {p}results is None: {p}results = {{call}}",
            f"return {p}results",
        ),
    }[results]
    names[f"{p}check"] = check_has_run
    lines = []
    for i, impl in enumerate(implementations):
        names[f"{p}{i}"] = impl.function
        call = f"{p}{i}({', '.join(impl.argnames)})"
        lines.append(Line(template.format(call=call), impl))
    return Line(first), lines, Line(last)


def _write_wrapped(
    signature: Signature,
    wrappers: Sequence[pluggy.HookImpl],
    body: Sequence[Line],
    names: dict[str, object],
) -> Callable[..., Any]:
    """Write a function with `body`, which sets the results, inside wrappers."""
    p = signature.prefix
    names |= {
        f"{p}unwind": unwind,
        f"{p}without_yield": fail_without_yield,
        f"{p}second_yield": fail_second_yield,
        f"{p}end": object(),
        f"{p}wrappers": tuple(wrappers),
    }
    entered = [f"{p}w{i}" for i in range(len(wrappers))]
    lines = [Line(" = ".join([*entered, "None"])), Line("try:")] if entered else [Line("try:")]
    for name, impl in zip(entered, wrappers, strict=True):
        names[f"{name}_"] = impl.function
        call = f"{name}_({', '.join(impl.argnames)})"
        lines += [
            Line(f"    {name} = {call}", impl),
            Line(f"    if next({name}, {p}end) is {p}end: {p}without_yield({name})", impl),
        ]
    lines += (Line(f"    {line.text}", line.impl) for line in body)
    lines += _handler(p, entered)
    for i, impl in reversed(list(enumerate(wrappers))):
        lines += [
            Line("try:"),
            Line(f"    {entered[i]}.send({p}results)", impl),
            Line(f"    {p}second_yield({entered[i]})", impl),
            Line(f"except StopIteration as {p}end_:"),
            Line(f"    {p}results = {p}end_.value"),
            *_handler(p, entered[:i]),
        ]
    return signature.write([*lines, Line(f"return {p}results")], names)


def _handler(p: str, entered: Sequence[str]) -> list[Line]:
    """Return the lines that leave some wrappers, the outermost ones, with an exception."""
    wrappers = "".join(f"{name}, " for name in entered)
    return [
        Line(f"except BaseException as {p}error:"),
        Line(f"    return {p}unwind({p}error, ({wrappers}), {p}wrappers[:{len(entered)}])"),
    ]


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
    found = find_driven(frame)
    if code.co_filename.startswith("<ttl "):
        found = frame.f_globals.get("__implementations__", {}).get(line)
    if found is not None:
        return next((impl for impl in implementations if impl is found), None)
    for impl in implementations:
        if getattr(inspect.unwrap(impl.function), "__code__", None) is code:
            owner = getattr(impl.function, "__self__", None)
            first = next(iter(code.co_varnames[: code.co_argcount]), None)
            if owner is None or frame.f_locals.get(first or "", owner) is owner:
                return impl
    return None
