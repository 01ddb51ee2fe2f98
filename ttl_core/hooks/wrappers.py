"""Driving wrappers: generators that are entered before a hook, and left after it in reverse.

The semantics are those of pluggy's own wrappers: each is given the result or the exception of what
it surrounds, may replace either, and swallows an exception by returning. In one thing they are
stricter: where a wrapper yields twice, those around it are still left.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from types import FrameType
from typing import Any, NoReturn, cast

import pluggy

from ttl_core.errors import ComponentRejectedError

Wrapper = Generator[None, Any, Any]


def enter(impl: pluggy.HookImpl, arguments: Sequence[object]) -> Wrapper:
    """Run a wrapper up to its yield, and return it.

    Args:
        impl: its implementation.
        arguments: those that the implementation names.

    Raises:
        RuntimeError: it returned before its yield.
    """
    wrapper = cast(Wrapper, impl.function(*arguments))
    try:
        next(wrapper)
    except StopIteration:
        fail_without_yield(wrapper)
    return wrapper


def unwind(
    exception: BaseException | None,
    wrappers: Sequence[Wrapper | None],
    implementations: Sequence[pluggy.HookImpl],
) -> object:
    """Leave wrappers, the innermost first; return the last result, or raise what passes.

    Args:
        exception: the exception of what they surround; None if there is none.
        wrappers: the wrappers, outermost first; None for one that was not entered.
        implementations: their implementations.
    """
    result: object = None
    for wrapper, impl in reversed(list(zip(wrappers, implementations, strict=True))):
        if wrapper is not None:
            try:
                result, exception = _leave(impl, wrapper, result, exception), None
            except BaseException as raised:
                # a StopIteration that a generator lets pass is the cause of a RuntimeError then
                is_stop = isinstance(exception, StopIteration) and isinstance(raised, RuntimeError)
                exception = exception if is_stop and raised.__cause__ is exception else raised
    if exception is not None:
        raise exception
    return result


def _leave(
    impl: pluggy.HookImpl,  # noqa: ARG001  (for find_driven)
    wrapper: Wrapper,
    result: object,
    exception: BaseException | None,
) -> object:
    """Run a wrapper to its end, and return its result."""
    try:
        if exception is None:
            wrapper.send(result)
        else:
            wrapper.throw(exception)
        fail_second_yield(wrapper)
    except StopIteration as end:
        return end.value


def fail_without_yield(wrapper: Wrapper) -> NoReturn:
    """Raise the error for a wrapper that returned before its yield."""
    raise RuntimeError(_describe(wrapper, "did not yield"))


def fail_second_yield(wrapper: Wrapper) -> NoReturn:
    """Close a wrapper that yielded twice, and raise the error for it."""
    wrapper.close()
    raise RuntimeError(_describe(wrapper, "has second yield"))


def _describe(wrapper: Wrapper, problem: str) -> str:
    code = wrapper.gi_code  # type: ignore[attr-defined]
    where = f"{code.co_filename}:{code.co_firstlineno}"
    return f"wrap_controller at {code.co_name!r} {where} {problem}"


def check_has_run(result: Any) -> Any:
    """Return the result of a hook, if it is nothing that would still have to run.

    Raises:
        ComponentRejectedError: it is a generator or a coroutine.
    """
    if inspect.isgenerator(result) or inspect.iscoroutine(result) or inspect.isasyncgen(result):
        getattr(result, "close", lambda: None)()  # without Python's warning that it was not run
        raise ComponentRejectedError(
            f"the hook returned a {type(result).__name__}, which is not run: its decorator, or the "
            "function that it calls, does nothing before it is run to its end. To surround the "
            "others, write @hookimpl(wrapper=True) and `return (yield from ...)`"
        )
    return result


def find_driven(frame: FrameType) -> pluggy.HookImpl | None:
    """Return the implementation of the wrapper that a frame of this module enters or leaves."""
    is_driver = frame.f_code in (enter.__code__, _leave.__code__)
    return frame.f_locals["impl"] if is_driver else None
