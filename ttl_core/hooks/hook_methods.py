"""The hook methods of a component, and what is rejected in them when it joins a list."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType, MethodType
from typing import Any, cast

import pluggy

from ttl_core.arguments import did_you_mean
from ttl_core.hooks.compilation import NO_OPTIONS
from ttl_core.hooks.member import HookMethods
from ttl_core.hooks.method_checks import adapt, check_method, problem_of, rejected
from ttl_core.hookspecs import POINTS, CallbackPoints
from ttl_core.other_libraries import METHODS_OF_OTHERS, suggest_point


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
    _check_none_is_hidden(component, owner)
    for name, function, options in _hooks(type(component), _own_hooks(component)):
        point = str(options["specname"])
        if not inspect.isroutine(function):
            _check_not_meant(name, function, owner)
            continue
        is_meant = point.startswith(("on_", "around_")) or _is_misspelled(point)
        if is_meant and point not in POINTS:
            problem = (
                f"is not a callback point. {suggest_point(point, POINTS)}"
                f"The points are: {', '.join(POINTS)}"
            )
            raise rejected(owner, name, function, problem)
        found[name] = (_checked(getattr(component, name), name, options, owner), options)
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
        raise rejected(owner, name, attribute, problem)


def _check_not_of_others(component: object, owner: object) -> None:
    """Reject a component without hook methods that has methods which other libraries call."""
    for name in METHODS_OF_OTHERS:
        if hasattr(type(component), name):
            problem = (
                "is not called: the methods of a component are named after callback points, such "
                "as on_forward_pass, on_loss_compute and on_optim_step"
            )
            raise rejected(owner, name, getattr(component, name), problem)


_sound = weakref.WeakKeyDictionary[FunctionType, tuple[object, ...]]()
"""Functions that are called as they are, each with what it was checked for.

A check takes longer than all else that is done for a method when a loop is made.
"""


def _checked(
    method: Callable[..., Any], name: str, options: pluggy.HookimplOpts, owner: object
) -> Callable[..., Any]:
    """Return a hook method in the form in which it is called; check those of core points."""
    point = str(options["specname"])
    if point not in POINTS:
        return adapt(method, is_wrapper=options["wrapper"])
    function = getattr(method, "__func__", method)
    what = (point, options["wrapper"], options["hookwrapper"], type(method))
    if isinstance(function, FunctionType) and _sound.get(function) == what:
        return method
    check_method(method, name, options, _core_arguments(point), owner)
    adapted = adapt(method, is_wrapper=options["wrapper"])
    if adapted is method and isinstance(function, FunctionType):
        _sound[function] = what
    return adapted


def implemented_points(cls: type) -> list[str]:
    """Return the callback points that a component class implements, the core's first."""
    points = {str(options["specname"]) for _, _, options in _hooks(cls, {})}
    return [*(p for p in POINTS if p in points), *sorted(points - set(POINTS))]


def find_mark(attribute: Any, name: str) -> Any:
    """Return what a marker of pluggy has set on a function, or None.

    Args:
        attribute: the function, as it is in a class: maybe inside a staticmethod or classmethod,
            with the mark above or below it.
        name: the name of the attribute that the marker sets.
    """
    return getattr(attribute, name, None) or getattr(_function_of(attribute), name, None)


def _is_routine(value: Any) -> bool:
    # most are functions, and to see that a text is not one takes long
    return isinstance(value, FunctionType) or (
        not isinstance(value, _PLAIN) and inspect.isroutine(value)
    )


_PLAIN = (str, int, float, tuple, dict, property, type(None))


def _function_of(attribute: Any) -> Any:
    is_inside = isinstance(attribute, staticmethod | classmethod)
    return attribute.__func__ if is_inside else attribute


def _hooks(cls: type, own: Mapping[str, Any]) -> Iterator[tuple[str, Any, pluggy.HookimplOpts]]:
    """Yield what is, or looks like, a hook method: its name, function and options.

    No property is run. A method without a mark has that of the method that it overrides, unless
    it is a wrapper's.

    Args:
        cls: the class of the component.
        own: the attributes of the component itself that are meant as hooks.
    """
    functions: dict[str, Any] = {}
    marks: dict[str, Any] = {}
    in_front, behind = _classes(cls)
    namespaces = (*map(_marked, reversed(behind)), *map(vars, reversed(in_front)), own)
    for namespace in namespaces:
        for name, static in namespace.items():
            function = functions[name] = _function_of(static)
            mark = find_mark(static, "ttl_impl") if _is_routine(function) else None
            inherited = marks.get(name)
            if mark is None and inherited is not None and not inherited["wrapper"]:
                mark = inherited
            marks[name] = mark
    for name, function in functions.items():
        mark = marks[name] if _is_routine(function) else None
        looks_like_one = name in POINTS or name.startswith(("on_", "around_"))
        is_noop = getattr(function, "__func__", function) is vars(CallbackPoints).get(name)
        looks_like_one = looks_like_one or (_is_misspelled(name) and _is_routine(function))
        if (mark or looks_like_one) and not is_noop:
            options = cast(pluggy.HookimplOpts, dict(mark or NO_OPTIONS))
            options["specname"] = options["specname"] or name
            yield name, function, options


def _marked(cls: type) -> dict[str, Any]:
    """Return the methods of a class behind the empty ones that are marked, and not hidden."""
    return {
        name: static
        for name, static in vars(cls).items()
        if name not in POINTS
        and _is_routine(_function_of(static))
        and find_mark(static, "ttl_impl")
    }


_WITHOUT_UNDERSCORES = frozenset(point.replace("_", "") for point in POINTS)


def _is_misspelled(name: str) -> bool:
    """Return whether a public name is that of a point but for case and underscores."""
    return (
        name[:1] in "oOaA"  # which tells most names, and is fast
        and name not in POINTS
        and name.replace("_", "").lower() in _WITHOUT_UNDERSCORES
    )


def _check_none_is_hidden(component: object, owner: object) -> None:
    """Check that no mixin has a hook method that the empty one of LoopComponent hides."""
    cls = type(component)
    for mixin in _classes(cls)[1]:
        for name in vars(mixin).keys() & set(POINTS):
            method = getattr(mixin, name)
            bound = MethodType(method, component) if isinstance(method, FunctionType) else method
            is_hook = find_mark(vars(mixin)[name], "ttl_impl") or not problem_of(
                bound, name, NO_OPTIONS, _core_arguments(name)
            )
            if is_hook and getattr(cls, name) is vars(CallbackPoints)[name]:
                problem = (
                    f"of {mixin.__name__} is never called, as LoopComponent is in front of it. "
                    f"Write class {cls.__name__}({mixin.__name__}, LoopComponent)"
                )
                raise rejected(owner, name, method, problem)


def _classes(cls: type) -> tuple[Sequence[type], Sequence[type]]:
    """Return the classes whose attributes are in front of the empty hook methods, and the others.

    Those of LoopComponent's base and of object itself are left out.
    """
    classes = cls.__mro__[:-1]
    position = classes.index(CallbackPoints) if CallbackPoints in classes else len(classes)
    return classes[:position], classes[position + 1 :]


def spec_arguments(spec: Any) -> tuple[str, ...]:
    """Return the arguments of a hookspec, as it is in a class, without self."""
    names = tuple(inspect.signature(_function_of(spec)).parameters)
    return names[1:] if names[:1] in (("self",), ("cls",)) else names


@functools.cache
def _core_arguments(point: str) -> tuple[str, ...]:
    return spec_arguments(getattr(CallbackPoints, point))


def _own_hooks(component: object) -> dict[str, Any]:
    """Return the attributes of an object itself, not of its class, that are meant as hooks."""
    own, cls = getattr(component, "__dict__", {}), type(component)
    return {name: value for name, value in own.items() if _is_meant_as_hook(cls, name, value)}


def _is_meant_as_hook(cls: type, name: str, value: Any) -> bool:
    """Return whether an attribute of an instance is one of its hooks, or a misspelled one.

    One that hides a hook of the class is meant as well: None disables that hook for the instance.
    Other callables are not, unless their names are nearly those of points.
    """
    if name in POINTS or find_mark(value, "ttl_impl"):
        return True
    if find_mark(getattr(cls, name, None), "ttl_impl"):
        return True
    return name.startswith(("on_", "around_")) and bool(did_you_mean(name, POINTS, cutoff=0.85))
