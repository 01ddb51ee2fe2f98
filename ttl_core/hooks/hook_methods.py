"""The hook methods of a component, and what is rejected in them when it joins a list."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, cast

import pluggy

from ttl_core.arguments import did_you_mean
from ttl_core.errors import ComponentRejectedError
from ttl_core.hooks.compilation import NO_OPTIONS
from ttl_core.hooks.member import HookMethods
from ttl_core.hookspecs import POINTS, CallbackPoints


def hook_methods(component: object, owner: object) -> HookMethods:
    """Find the hook methods of a component, and check those for core points.

    Args:
        component: the component.
        owner: the component as errors name it, converted to text only then.

    Returns:
        Its hook methods. The option `specname` of each is the name of its point.

    Raises:
        ComponentRejectedError: one of them could never be called as its author meant.
    """
    found: dict[str, tuple[Callable[..., Any], pluggy.HookimplOpts]] = {}
    for name, function, options in _hooks(_attributes(component)):
        point = str(options["specname"])
        if not inspect.isroutine(function):
            if name in POINTS or callable(function):
                raise _rejected(
                    owner,
                    name,
                    function,
                    f"is a {type(function).__name__}, not a function or method",
                )
            continue
        if point.startswith(("on_", "around_")) and point not in POINTS:
            raise _rejected(
                owner,
                name,
                function,
                f"is not a callback point. {did_you_mean(point, POINTS)}"
                f"The points are: {', '.join(POINTS)}",
            )
        method = getattr(component, name)
        if point in POINTS:
            check_method(method, name, options, _core_arguments(point), owner)
        found[name] = (method, options)
    return found


def implemented_points(cls: type) -> list[str]:
    """Return the callback points that a component class implements, the core's first."""
    attributes = {n: value for c in reversed(cls.__mro__) for n, value in vars(c).items()}
    points = {str(options["specname"]) for _, _, options in _hooks(attributes)}
    return [*(p for p in POINTS if p in points), *sorted(points - set(POINTS))]


def _hooks(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any, pluggy.HookimplOpts]]:
    """Yield what is, or looks like, a hook method: its name, function and options."""
    for name, static in attributes.items():
        function = static.__func__ if isinstance(static, staticmethod | classmethod) else static
        marked = getattr(function, "ttl_impl", None) if inspect.isroutine(function) else None
        looks_like_one = name in POINTS or name.startswith(("on_", "around_"))
        if (marked or looks_like_one) and function is not vars(CallbackPoints).get(name):
            options = cast(pluggy.HookimplOpts, dict(marked or NO_OPTIONS))
            options["specname"] = options["specname"] or name
            yield name, function, options


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
    problem = _problem(method, str(options["specname"]), options, arguments)
    if problem:
        raise _rejected(owner, name, method, problem)


def spec_arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the arguments of a hookspec, without self."""
    names = tuple(inspect.signature(function).parameters)
    return names[1:] if names[:1] == ("self",) else names


@functools.cache
def _core_arguments(point: str) -> tuple[str, ...]:
    return spec_arguments(getattr(CallbackPoints, point))


def _attributes(component: object) -> dict[str, Any]:
    """Return the attributes of an object and its classes as they are, running no property."""
    found: dict[str, Any] = {}
    for cls in reversed(type(component).__mro__):
        found.update(vars(cls))
    found.update(getattr(component, "__dict__", {}))
    return found


def _rejected(owner: object, name: str, function: object, problem: str) -> ComponentRejectedError:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where = f"\n    at {code.co_filename}:{code.co_firstlineno}" if code else ""
    return ComponentRejectedError(f"{owner} cannot join: its {name} {problem}{where}")


def _problem(
    method: Callable[..., Any],
    point: str,
    options: pluggy.HookimplOpts,
    arguments: Sequence[str],
) -> str | None:
    """Return what is wrong with a hook method, with the fix, or None."""
    inner = inspect.unwrap(method)
    inner = inner.__func__ if isinstance(inner, MethodType) else inner
    if not isinstance(inner, FunctionType):
        return f"is a {type(inner).__name__}, not a function written in Python"
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        return "is async; the loop calls hooks and does not await them. Write it with plain def"
    if options["hookwrapper"]:
        return "is marked hookwrapper=True, pluggy's old style. Write @hookimpl(wrapper=True)"
    is_generator = inspect.isgeneratorfunction(inner)
    if point.startswith("around_") and not options["wrapper"]:
        return (
            "can only be a wrapper. Put @hookimpl(wrapper=True) above it and yield once, where "
            "the run or the epoch takes place"
        )
    if is_generator and not options["wrapper"]:
        return "yields, but is no wrapper. Put @hookimpl(wrapper=True) above it"
    if options["wrapper"] and not is_generator:
        return "is marked wrapper=True but never yields. Yield once, where the others are called"

    code = inner.__code__
    names = code.co_varnames[: code.co_argcount]
    is_bound = isinstance(method, MethodType)
    own = names[1:] if is_bound else names
    right = ", ".join([*(["self"] if is_bound else []), *arguments])
    fix = f"Write:\n    def {inner.__name__}({right}):"
    takes_anything = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    if takes_anything and not own and not code.co_kwonlyargcount:
        return (
            "takes only * arguments, so the loop cannot tell what to pass; "
            f"a decorator without functools.wraps does that. {fix}"
        )
    if is_bound and (not names or names[0] in arguments):
        return f"has no self. {fix}"
    if code.co_kwonlyargcount:
        return f"has keyword-only arguments, and the loop passes arguments by position. {fix}"
    if inner.__defaults__:
        return f"has a default value for an argument, which would never be used. {fix}"
    unknown = [name for name in own if name not in arguments]
    if unknown:
        return f"takes {', '.join(unknown)}, which {point} does not have. {fix}"
    return None
