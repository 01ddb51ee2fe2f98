"""The callback points that components provide, and their match with what others implement."""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ttl_core.arguments import did_you_mean
from ttl_core.errors import ComponentRejectedError
from ttl_core.hooks.hook_methods import find_mark, spec_arguments
from ttl_core.hooks.member import Member
from ttl_core.hooks.method_checks import check_method
from ttl_core.hookspecs import POINTS
from ttl_core.other_libraries import suggest_point


def provided_points(component: object, key: str, owner: object) -> Mapping[str, Any]:
    """Return the hookspecs of the callback points that a component provides, by name.

    Args:
        component: the component.
        key: its entry point's name, with which the names have to begin.
        owner: the component as errors name it.

    Raises:
        ComponentRejectedError: it provides none, or one that is not possible.
    """
    namespace = getattr(component, "hookspecs", None)
    if namespace is None:
        return {}
    if not (inspect.ismodule(namespace) or inspect.isclass(namespace)):
        raise ComponentRejectedError(
            f"{owner} cannot join: its hookspecs are {namespace!r}, not a module or class of "
            "functions marked with @hookspec"
        )
    prefix = prefix_of(key)
    # a subclass provides the points of its base class, by their names
    is_inherited = any(vars(c).get("hookspecs") is namespace for c in type(component).__mro__[1:])
    points = {
        name: value
        for name, value in inspect.getmembers_static(namespace)
        if find_mark(value, "ttl_spec")
    }
    if not points:
        raise ComponentRejectedError(
            f"{owner} cannot join: its hookspecs {namespace.__name__} hold no function marked with "
            "@hookspec"
        )
    for name, value in points.items():
        if not (name.startswith(prefix) or is_inherited) or name in POINTS:
            raise ComponentRejectedError(
                f"{owner} cannot join: it provides the callback point {name!r}, whose name does "
                f"not begin with its own. Call it {prefix}{name}"
            )
        _check_spec(name, value, getattr(namespace, name), owner)
    return points


def _check_spec(name: str, spec: Any, function: Callable[..., Any], owner: object) -> None:
    """Check that the loop can call a callback point that a component provides.

    Args:
        name: the name of the point.
        spec: its hookspec, as it is in a class or module.
        function: the same as a function.
        owner: the component as errors name it.

    Raises:
        ComponentRejectedError: it cannot.
    """
    if find_mark(spec, "ttl_spec")["historic"]:
        raise ComponentRejectedError(
            f"{owner} cannot join: its callback point {name!r} is historic, and the loop "
            "replays nothing. Write @hookspec without it"
        )
    arguments = inspect.signature(function).parameters
    kinds = {argument.kind for argument in arguments.values()}
    if kinds - {inspect.Parameter.POSITIONAL_OR_KEYWORD} or "loop" not in arguments:
        raise ComponentRejectedError(
            f"{owner} cannot join: its callback point {name!r} has to take plain arguments, "
            f"`loop` among them. Write:\n    def {name}(self, loop, ...):"
        )


def prefix_of(name: str) -> str:
    """Return that with which the names of the callback points of a component begin.

    Args:
        name: the component's name.
    """
    return f"{name.replace('-', '_')}_"


def explain_missing(
    point: str, members: Sequence[Member], find_provider: Callable[[str], str]
) -> str:
    """Return sentences on a point that no member provides: the nearest one, and what to add.

    Args:
        point: the name of the point.
        members: all members of a list.
        find_provider: says which installed component, if any, provides a callback point.
    """
    provided = [name for member in members for name in member.points]
    hint = suggest_point(point, [*POINTS, *provided])
    owner = _owner_of(point, members)
    if owner is None:
        return f"{hint}{find_provider(point)}".rstrip()
    return f"{hint}{owner} provides {', '.join(owner.points) or 'no callback points'}"


def _owner_of(point: str, members: Sequence[Member]) -> Member | None:
    """Return the member with whose name that of a point begins."""
    owners = [member for member in members if point.startswith(prefix_of(member.key))]
    return max(owners, key=lambda member: len(member.key), default=None)


def check_points(
    members: Sequence[Member],
    find_provider: Callable[[str], str],
    leaving: Sequence[Member] = (),
) -> None:
    """Check the callback points that members provide against those that they implement.

    Args:
        members: all members of a list.
        find_provider: says which installed component, if any, provides a callback point.
        leaving: those that are about to leave it.

    Raises:
        ComponentRejectedError: two provide the same point, no component provides one that is
            implemented, or an implementation does not fit.
    """
    provided = _providers(members)
    for member in members:
        for point in provided.keys() - member.methods.keys():
            if inspect.isroutine(inspect.getattr_static(member.component, point, None)):
                raise ComponentRejectedError(
                    f"{member} cannot join: its {point} has the name of a callback point of "
                    f"{provided[point][0]}, but is not marked. Put @hookimpl above it"
                )
        for name, (method, options) in member.methods.items():
            point = str(options["specname"])
            if point in provided:
                spec = provided[point][1]
                check_method(method, name, options, spec_arguments(spec), member)
                _warn_if_deprecated(member, method, point, spec)
            elif point not in POINTS and options["optionalhook"]:
                _warn_if_misspelled(member, method, point, _owner_of(point, members))
            elif point not in POINTS:
                _check_stays(point, member, leaving)
                raise ComponentRejectedError(
                    f"{member} cannot join: its {name} is not a callback point of the core or of "
                    f"a component in the list. {explain_missing(point, members, find_provider)}"
                )


def _providers(members: Sequence[Member]) -> dict[str, tuple[Member, Any]]:
    """Return the members that provide callback points, and the hookspecs, by point.

    Raises:
        ComponentRejectedError: two provide the same point.
    """
    provided: dict[str, tuple[Member, Any]] = {}
    for member in members:
        for point, spec in member.points.items():
            other, other_spec = provided.setdefault(point, (member, spec))
            if other_spec is not spec:
                raise ComponentRejectedError(
                    f"{member} cannot join: it provides the callback point {point!r}, and so "
                    f"does {other}. Remove one of them"
                )
    return provided


def _check_stays(point: str, member: Member, leaving: Sequence[Member]) -> None:
    """Check that no member that leaves provides a callback point that another one implements.

    Raises:
        ComponentRejectedError: one does.
    """
    for provider in leaving:
        if point in provider.points:
            raise ComponentRejectedError(
                f"{provider} cannot be removed: it provides the callback point {point!r}, which "
                f"{member} implements. Remove {member.name!r} first"
            )


_warned: weakref.WeakKeyDictionary[type, set[str]] = weakref.WeakKeyDictionary()
"""What was reported already of the points that a component class implements."""


def _warn_if_misspelled(
    member: Member, method: Callable[..., Any], point: str, owner: Member | None
) -> None:
    """Warn of an optional implementation that waits for a point, although its provider is there."""
    if owner is None or not owner.points:
        return
    text = (
        f"{member} implements {point}, which is never called: {owner} does not provide it. "
        f"{did_you_mean(point, owner.points)}It provides {', '.join(owner.points)}"
    )
    _warn_once(member, method, point, UserWarning, text)


def _warn_once(
    member: Member, method: Callable[..., Any], what: str, category: type[Warning], text: str
) -> None:
    """Warn at the line of an implementation, once a class."""
    reported = _warned.setdefault(type(member.component), set())
    if what not in reported:
        reported.add(what)
        inner = inspect.unwrap(method)
        code = getattr(inner, "__func__", inner).__code__
        warnings.warn_explicit(text, category, code.co_filename, code.co_firstlineno)


def _warn_if_deprecated(member: Member, method: Callable[..., Any], point: str, spec: Any) -> None:
    """Warn of a deprecation in a hookspec, once a class and where its author sees it."""
    options = find_mark(spec, "ttl_spec")
    if not (options["warn_on_impl"] or options["warn_on_impl_args"]):
        return
    about = {point: options["warn_on_impl"]}
    for argument, warning in (options["warn_on_impl_args"] or {}).items():
        if argument in inspect.signature(method).parameters:
            about[f"{point}({argument})"] = warning
    for what, warning in about.items():
        if warning is not None:
            text = f"{member} implements {what}, which is deprecated: {warning}"
            # not a DeprecationWarning, which Python shows for code in __main__ only
            _warn_once(member, method, what, FutureWarning, text)
