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
from ttl_core.hooks.other_libraries import METHODS_OF_OTHERS, suggest_point
from ttl_core.hooks.wrappers import check_has_run
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
    for name, function, options in _hooks(_attributes(component), type(component)):
        point = str(options["specname"])
        if not inspect.isroutine(function):
            _check_not_meant(name, function, owner)
            continue
        if point.startswith(("on_", "around_")) and point not in POINTS:
            problem = (
                f"is not a callback point. {suggest_point(point, POINTS)}"
                f"The points are: {', '.join(POINTS)}"
            )
            raise _rejected(owner, name, function, problem)
        method = getattr(component, name)
        if point in POINTS:
            check_method(method, name, options, _core_arguments(point), owner)
        found[name] = (adapt(method, is_wrapper=options["wrapper"]), options)
    if not found:
        _check_not_of_others(component, owner)
    return found


def _check_not_meant(name: str, attribute: object, owner: object) -> None:
    """Reject an attribute that is no function where one is expected, but not plain data."""
    if name in POINTS or callable(attribute):
        problem = f"is a {type(attribute).__name__}, not a function or method"
        if attribute is None and name in POINTS:
            fix = f"{name} = LoopComponent.{name}"
            problem += f". To disable one of a base class, write {fix}"
        raise _rejected(owner, name, attribute, problem)


def _check_not_of_others(component: object, owner: object) -> None:
    """Reject a component without hook methods that has methods which other libraries call."""
    for name in METHODS_OF_OTHERS:
        if hasattr(type(component), name):
            problem = (
                "is not called: the methods of a component are named after callback points, such "
                "as on_forward_pass, on_loss_compute and on_optim_step"
            )
            raise _rejected(owner, name, getattr(component, name), problem)


def implemented_points(cls: type) -> list[str]:
    """Return the callback points that a component class implements, the core's first."""
    attributes = {n: value for c in reversed(cls.__mro__) for n, value in vars(c).items()}
    points = {str(options["specname"]) for _, _, options in _hooks(attributes, cls)}
    return [*(p for p in POINTS if p in points), *sorted(points - set(POINTS))]


def find_mark(attribute: Any, name: str) -> Any:
    """Return what a marker of pluggy has set on a function, or None.

    Args:
        attribute: the function, as it is in a class: maybe inside a staticmethod or classmethod,
            with the mark above or below it.
        name: the name of the attribute that the marker sets.
    """
    return getattr(attribute, name, None) or getattr(_function_of(attribute), name, None)


def _function_of(attribute: Any) -> Any:
    is_inside = isinstance(attribute, staticmethod | classmethod)
    return attribute.__func__ if is_inside else attribute


def _hooks(
    attributes: Mapping[str, Any], cls: type
) -> Iterator[tuple[str, Any, pluggy.HookimplOpts]]:
    """Yield what is, or looks like, a hook method: its name, function and options."""
    for name, static in attributes.items():
        function = _function_of(static)
        is_routine = inspect.isroutine(function)
        marked = find_mark(static, "ttl_impl") if is_routine else None
        if marked is None and is_routine:
            marked = _inherited_mark(cls, name)
        looks_like_one = name in POINTS or name.startswith(("on_", "around_"))
        is_noop = getattr(function, "__func__", function) is vars(CallbackPoints).get(name)
        if (marked or looks_like_one) and not is_noop:
            options = cast(pluggy.HookimplOpts, dict(marked or NO_OPTIONS))
            options["specname"] = options["specname"] or name
            yield name, function, options


def _inherited_mark(cls: type, name: str) -> Any:
    """Return the mark of the method that one without a mark overrides, unless it is a wrapper."""
    marks = (find_mark(vars(c)[name], "ttl_impl") for c in cls.__mro__ if name in vars(c))
    mark = next(filter(None, marks), None)
    return None if mark is None or mark["wrapper"] else mark


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


def spec_arguments(spec: Any) -> tuple[str, ...]:
    """Return the arguments of a hookspec, as it is in a class, without self."""
    names = tuple(inspect.signature(_function_of(spec)).parameters)
    return names[1:] if names[:1] in (("self",), ("cls",)) else names


@functools.cache
def _core_arguments(point: str) -> tuple[str, ...]:
    return spec_arguments(getattr(CallbackPoints, point))


def _attributes(component: object) -> dict[str, Any]:
    """Return the attributes of an object and its classes as they are, running no property."""
    found: dict[str, Any] = {}
    for cls in reversed(type(component).__mro__):
        found.update(vars(cls))
    own = getattr(component, "__dict__", {}).items()
    return found | {name: value for name, value in own if _is_meant_as_hook(name, value)}


def _is_meant_as_hook(name: str, value: Any) -> bool:
    """Return whether an attribute of an instance is one of its hooks, or a misspelled one.

    Other callables are its own affair, also where their names begin like those of hooks.
    """
    if name in POINTS or find_mark(value, "ttl_impl"):
        return True
    return name.startswith(("on_", "around_")) and bool(did_you_mean(name, POINTS, cutoff=0.85))


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
