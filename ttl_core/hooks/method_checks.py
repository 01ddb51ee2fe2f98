"""What is checked of a hook method before it is called, and the form in which it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any, cast

import pluggy

from ttl_core.errors import ComponentRejectedError
from ttl_core.hooks.wrappers import check_has_run


def check_method(
    method: Callable[..., Any],
    name: str,
    options: pluggy.HookimplOpts,
    arguments: Sequence[str],
    owner: object,
) -> None:
    """Check that a hook method can be called with the arguments of its point.

    Args:
        method: the method.
        name: its own name.
        options: pluggy's options, `specname` among them.
        arguments: the arguments that the point has.
        owner: the component as errors name it.

    Raises:
        ComponentRejectedError: it cannot.
    """
    problem = problem_of(method, str(options["specname"]), options, arguments)
    if problem:
        raise rejected(owner, name, method, problem)


def rejected(owner: object, name: str, function: object, problem: str) -> ComponentRejectedError:
    """Return the error that says what is wrong with a hook method, and where it is written.

    Args:
        owner: the component as errors name it.
        name: the name of the method.
        function: what it is.
        problem: what is wrong with it, with the fix; the words follow its name.
    """
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where = f"\n    at {code.co_filename}:{code.co_firstlineno}" if code else ""
    return ComponentRejectedError(f"{owner} cannot join: its {name} {problem}{where}")


def problem_of(
    method: Callable[..., Any],
    point: str,
    options: pluggy.HookimplOpts,
    arguments: Sequence[str],
) -> str | None:
    """Return what is wrong with a hook method, with the fix, or None.

    Args:
        method: the method.
        point: its callback point.
        options: pluggy's options.
        arguments: the arguments that the point has.
    """
    function = method.__func__ if isinstance(method, MethodType) else method
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async; the loop calls hooks and does not await them. Write it with plain def"
    if options["hookwrapper"]:
        return "is marked hookwrapper=True, pluggy's old style. Write @hookimpl(wrapper=True)"
    if point.startswith("around_") and not options["wrapper"]:
        return (
            "can only be a wrapper. Put @hookimpl(wrapper=True) above it and yield once, where "
            "the run or the epoch takes place"
        )
    if inspect.isgeneratorfunction(function) and not options["wrapper"]:
        return "yields, but is no wrapper. Put @hookimpl(wrapper=True) above it"
    if options["wrapper"] and not inspect.isgeneratorfunction(inspect.unwrap(function)):
        return "is marked wrapper=True but never yields. Yield once, where the others are called"
    return _problem_with_arguments(method, function, point, arguments)


def _problem_with_arguments(
    method: Callable[..., Any], function: Callable[..., Any], point: str, arguments: Sequence[str]
) -> str | None:
    is_bound = isinstance(method, MethodType)
    right = ", ".join([*(["self"] if is_bound else []), *arguments])
    fix = f"Write:\n    def {getattr(function, '__name__', point)}({right}):"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # as for many functions that are not written in Python
        return f"has arguments that cannot be read. {fix}"
    kinds = {parameter.kind for parameter in parameters}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    open_ended = [str(p) for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    own = [parameter.name for parameter in (named[1:] if is_bound else named)]
    if open_ended and not own and inspect.Parameter.KEYWORD_ONLY not in kinds:
        return (
            "takes only * arguments, so the loop cannot tell what to pass; "
            f"a decorator without functools.wraps does that. {fix}"
        )
    if is_bound and (not named or named[0].name in arguments):
        return f"has no self. {fix}"
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        return f"has keyword-only arguments, and the loop passes arguments by position. {fix}"
    if any(parameter.default is not parameter.empty for parameter in named):
        return f"has a default value for an argument, which would never be used. {fix}"
    unknown = [name for name in own if name not in arguments]
    if unknown:
        return f"takes {', '.join(unknown)}, which {point} does not have. {fix}"
    if open_ended and set(arguments) - set(own):
        return f"takes {', '.join(open_ended)}, which would receive nothing. {fix}"
    return None


def adapt(method: Callable[..., Any], *, is_wrapper: bool) -> Callable[..., Any]:
    """Return a hook method in the form that pluggy and the compilation of hooks read.

    They read arguments from the code of a function. A method without such code, with a signature
    of its own, or behind a decorator that changes its kind gets a function around it.

    Args:
        method: the method.
        is_wrapper: whether it is marked as a wrapper.
    """
    function = method.__func__ if isinstance(method, MethodType) else method
    inner = inspect.unwrap(function)
    chain = [function, inner]
    is_readable = isinstance(inner, FunctionType) and not any(
        hasattr(one, "__signature__") for one in chain
    )
    is_of_one_kind = _kind(function) == _kind(inner)
    if is_readable and is_of_one_kind:
        return method
    try:
        names = ", ".join(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return method  # which is rejected where its point is known
    call = f"(yield from _method({names}))" if is_wrapper else f"_run(_method({names}))"
    name = getattr(function, "__name__", "")
    name = name if name.isidentifier() else "hook"
    namespace: dict[str, Any] = {"_method": method, "_run": check_has_run, "__name__": __name__}
    exec(f"def {name}({names}):\n    return {call}", namespace)
    return cast(Callable[..., Any], namespace[name])


def _kind(function: Callable[..., Any]) -> tuple[bool, ...]:
    checks = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return tuple(check(function) for check in checks)
