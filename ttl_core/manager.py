"""The pluggy manager of a loop: accepts or rejects a component, and compiles each hook."""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType
from typing import Any, cast

import pluggy

from ttl_core import calls
from ttl_core.errors import ComponentRejectedError, TTLError
from ttl_core.hookspecs import POINTS, CallbackPoints
from ttl_core.ordering import did_you_mean

HookMethods = Mapping[str, tuple[Callable[..., Any], pluggy.HookimplOpts]]
"""A component's hook methods by their own names, with pluggy's options for each."""


class _Plugin:
    """Hold the hook methods of one member for pluggy.

    pluggy compares plugins with `==` and looks at all their attributes; components may be equal
    to one another and may have properties that run code.
    """

    __slots__ = ("__dict__", "member")

    def __init__(self, member: Member) -> None:
        self.member = member


@dataclass(eq=False)
class Member:
    """Hold one component of a list, and what the list knows of it.

    Attributes:
        component: the component.
        own_name: the name it asks for.
        find_distribution: finds the name and version of the distribution it comes from, if any.
        config: the configuration it was made with, by name.
        enabled: whether it is called.
        name: its name in the list: its own, or one with a number where that was taken.
        was_in_list: whether that name has been fixed.
        methods: its hook methods.
        plugin: what pluggy knows it as.
    """

    component: Any
    own_name: str
    find_distribution: Callable[[], tuple[str, str] | None]
    config: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True

    def __post_init__(self) -> None:
        self.name = self.own_name
        self.was_in_list = False
        self.methods: HookMethods = {}
        self.plugin = _Plugin(self)

    def take_methods(self, methods: HookMethods) -> None:
        """Take the component's hook methods, once they have been found good."""
        self.methods = methods
        vars(self.plugin).update({name: method for name, (method, _) in methods.items()})

    def __str__(self) -> str:
        cls = type(self.component)
        origin = self.find_distribution() or ("class", f"{cls.__module__}.{cls.__qualname__}")
        return f"component {self.name!r} ({' '.join(origin)})"

    def record(self) -> dict[str, Any]:
        """Return what the list knows as data: JSON values as they are, others by their names."""
        distribution, version = self.find_distribution() or (None, None)
        return {
            "name": self.name,
            "class": _qualified_name(type(self.component)),
            "distribution": distribution,
            "version": version,
            "enabled": self.enabled,
            "config": _as_json(self.config),
        }


class _Table:
    """Hold a callable for each hook, as attributes."""


class HookManager(pluggy.PluginManager):
    """Register the members of one loop's list and compile each hook for their order.

    pluggy registers and checks; the order in which it was told of plugins decides nothing, the
    list does. When the list changes, a stub takes the place of each compiled hook and nothing
    else is done: the first call of a stub registers who came and compiles that one hook.

    Args:
        list_members: returns the members in list order, or raises an error about the list.

    Attributes:
        calls: for the loop: each hook with positional arguments, results dropped.
        relay: for everybody: each hook with keyword arguments, returning the list of results.
    """

    def __init__(self, list_members: Callable[[], Sequence[Member]]) -> None:
        super().__init__("ttl")
        self.add_hookspecs(CallbackPoints)
        self.calls: Any = _Table()
        self.relay: Any = _Table()
        self._list_members = list_members
        self._members: dict[object, Member] = {}
        # whoever left in the middle of its own hook may still fail in it
        self._departed: deque[pluggy.HookImpl] = deque(maxlen=256)
        self.list_changed()

    # -- from the list to callables ---------------------------------------------------------

    def list_changed(self) -> None:
        """Forget every compiled hook, because the list or a member has changed."""
        self._is_current = False
        for point in vars(self.hook):
            setattr(self.calls, point, functools.partial(self._first_call, point))
            setattr(self.relay, point, functools.partial(self._first_public_call, point))

    def _first_call(self, point: str, *args: object) -> object:
        self._register_members()
        call = self._compile(point, self.implementations(point))
        setattr(self.calls, point, call)
        return call(*args)

    def _first_public_call(self, point: str, **kwargs: object) -> object:
        self._register_members()
        call = self._compile_public(point, self.implementations(point))
        setattr(self.relay, point, call)
        return call(**kwargs)

    def implementations(self, point: str) -> list[pluggy.HookImpl]:
        """Return the implementations of a point in call order, wrappers first.

        Within wrappers, tryfirst, plain and trylast implementations the order is the list's.
        """
        position = {plugin: i for i, plugin in enumerate(self._members)}

        def place(impl: pluggy.HookImpl) -> tuple[bool, int, int]:
            return not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin]

        return sorted((i for i in self._registered(point) if self.member_of(i).enabled), key=place)

    def _register_members(self) -> None:
        if self._is_current:
            return
        members: dict[object, Member] = {m.plugin: m for m in self._list_members()}
        for plugin in self._members.keys() - members.keys():
            self._departed.extend(impl for impl in self._everything() if impl.plugin is plugin)
            self.unregister(plugin)
        known, self._members = self._members, members
        for plugin, member in members.items():
            if plugin not in known:
                self.register(plugin, name=member.name)
        self._is_current = True

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the options that were found when the component joined."""
        method = self._members[plugin].methods.get(name)
        return method[1] if method else None

    def _compile(self, point: str, implementations: list[pluggy.HookImpl]) -> Callable[..., Any]:
        if point.startswith("around_"):
            return lambda loop, body: calls.surround(
                point, implementations, self._hookexec, body, {"loop": loop}
            )
        arguments = self._arguments(point)
        if any(impl.wrapper for impl in implementations):
            return calls.wrapped(point, arguments, implementations, self._hookexec)
        return calls.direct(point, arguments, implementations) or calls.flat(
            point, arguments, implementations, results="dropped"
        )

    def _compile_public(
        self, point: str, implementations: list[pluggy.HookImpl]
    ) -> Callable[..., Any]:
        arguments = self._arguments(point)
        if any(impl.wrapper for impl in implementations):
            return calls.wrapped(
                point, arguments, implementations, self._hookexec, keyword_only=True
            )
        return calls.flat(point, arguments, implementations, results="listed", keyword_only=True)

    def _arguments(self, point: str) -> tuple[str, ...]:
        return cast(tuple[str, ...], getattr(self.hook, point).spec.argnames)

    def _registered(self, point: str) -> list[pluggy.HookImpl]:
        return cast(list[pluggy.HookImpl], getattr(self.hook, point).get_hookimpls())

    def _everything(self) -> list[pluggy.HookImpl]:
        return [impl for point in vars(self.hook) for impl in self._registered(point)]

    def member_of(self, impl: pluggy.HookImpl) -> Member:
        """Return the member whose implementation this is."""
        assert isinstance(impl.plugin, _Plugin)
        return impl.plugin.member

    # -- when a run fails -------------------------------------------------------------------

    def note_failure(self, exception: BaseException, epoch: CodeType, validate: CodeType) -> None:
        """Add a note to an exception that says which component raised it, where and when.

        Args:
            exception: what a run is about to fail with.
            epoch: the code of the loop's function that runs an epoch. Below its frames in a
                traceback lie the data of that epoch, or a hook.
            validate: the code of the loop's function that components may call.
        """
        everyone = [*self._everything(), *self._departed]
        impl: pluggy.HookImpl | None = None
        calling: pluggy.HookImpl | None = None
        position: dict[str, Any] = {}
        for frame, line in traceback.walk_tb(exception.__traceback__):
            if frame.f_code is validate:
                calling = impl
            elif frame.f_code is epoch:
                position, impl = frame.f_locals, None
            else:
                impl = calls.running(frame, line, [impl, *everyone] if impl else everyone) or impl
        if impl is not None:
            note = f"raised by {self._where(impl)}"
        elif isinstance(exception, TTLError):
            return  # the loop's own, which says all there is to say
        elif position:
            note = "raised by the data, not by a component"
        else:
            note = "raised by the loop, not by a component"
        if position:
            note += f", {position['desc']} epoch, epoch_num={position['self'].epoch_num}"
        if "batch_num" in position:
            note += f", {'' if impl else 'after '}batch_num={position['batch_num']}"
        if calling is not None:
            note += f", in a validate() called by {self._where(calling)}"
        _add_note(exception, note)

    def _where(self, impl: pluggy.HookImpl) -> str:
        return f"{self.member_of(impl)} in {impl.opts['specname']}"

    def report_failure(self, loop: object, exception: BaseException) -> None:
        """Call on_exception on every component; a failure in it becomes a note on `exception`."""
        with contextlib.suppress(TTLError):  # the list may be what is wrong
            self._register_members()
        implementations = self.implementations("on_exception")
        wrappers = [impl for impl in implementations if impl.wrapper]
        given = {"loop": loop, "exception": exception}
        waiting = [impl for impl in implementations if not impl.wrapper]

        @contextlib.contextmanager
        def noting(who: str) -> Iterator[None]:
            try:
                yield
            except BaseException as second:
                what = f"{type(second).__name__}: {second}"
                _add_note(exception, f"{who} then failed in on_exception: {what}")

        def reach_everybody() -> None:
            while waiting:
                impl = waiting.pop(0)
                with noting(str(self.member_of(impl))):
                    impl.function(*(given[name] for name in impl.argnames))

        with noting("a wrapper"):
            calls.surround("on_exception", wrappers, self._hookexec, reach_everybody, given)
        reach_everybody()  # of whom a wrapper that failed before its yield has kept us

    # -- when a component joins -------------------------------------------------------------

    def hook_methods(self, component: object, who: object) -> HookMethods:
        """Find and check the hook methods of a component.

        Args:
            component: the component, of any class.
            who: how errors name it; made a string only then.

        Returns:
            Its hook methods. The option `specname` of each is the name of its point.

        Raises:
            ComponentRejectedError: one of them could never be called as its author meant.
        """
        found: dict[str, tuple[Callable[..., Any], pluggy.HookimplOpts]] = {}
        for name, static in _attributes(component).items():
            function = static.__func__ if isinstance(static, staticmethod | classmethod) else static
            marked = getattr(function, "ttl_impl", None) if inspect.isroutine(function) else None
            is_point = name in POINTS
            if not (marked or is_point or name.startswith(("on_", "around_"))):
                continue
            if function is vars(CallbackPoints).get(name):
                continue  # the no-op of the base class
            reject = functools.partial(_reject, who, name, function)
            if not inspect.isroutine(function):
                if is_point or callable(function):
                    raise reject(f"is a {type(function).__name__}, no function or method")
                continue
            options = cast(pluggy.HookimplOpts, dict(marked or _NO_OPTIONS))
            point = options["specname"] = options["specname"] or name
            spec = getattr(getattr(self.hook, point, None), "spec", None)
            if spec is None:
                if options["optionalhook"]:
                    continue
                hint = did_you_mean(point, POINTS)
                raise reject(f"is no callback point. {hint}The points are: {', '.join(POINTS)}")
            method = getattr(component, name)
            problem = _problem(method, point, options, spec.argnames)
            if problem:
                raise reject(problem)
            found[name] = (method, options)
        return found


_NO_OPTIONS: pluggy.HookimplOpts = {
    "wrapper": False,
    "hookwrapper": False,
    "optionalhook": False,
    "tryfirst": False,
    "trylast": False,
    "specname": None,
}


def _qualified_name(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _as_json(value: Any) -> Any:
    """Return JSON values as they are and others by qualified name."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_as_json(item) for item in value]
        case Mapping():
            return {str(key): _as_json(item) for key, item in value.items()}
        case _:
            return _qualified_name(value)


def _add_note(exception: BaseException, note: str) -> None:
    with contextlib.suppress(Exception):  # an exception may have made its notes unusable
        exception.add_note(f"ttl: {note}")


def _attributes(component: object) -> dict[str, Any]:
    """Return the attributes of an object and its classes as they are, running no property."""
    found: dict[str, Any] = {}
    for cls in reversed(type(component).__mro__):
        found.update(vars(cls))
    found.update(getattr(component, "__dict__", {}))
    return found


def _reject(who: object, name: str, function: object, problem: str) -> ComponentRejectedError:
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    where = f"\n    at {code.co_filename}:{code.co_firstlineno}" if code else ""
    return ComponentRejectedError(f"{who} cannot join: its {name} {problem}{where}")


def _problem(
    method: Callable[..., Any],
    point: str,
    options: pluggy.HookimplOpts,
    arguments: Sequence[str],
) -> str | None:
    """Return what is wrong with a hook method, with the mend, or None."""
    inner = inspect.unwrap(method)
    inner = inner.__func__ if isinstance(inner, MethodType) else inner
    if not isinstance(inner, FunctionType):
        return f"is a {type(inner).__name__}, no function written in Python"
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
    mend = f"Write:\n    def {inner.__name__}({right}):"
    takes_anything = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    if takes_anything and not own and not code.co_kwonlyargcount:
        return (
            "takes only * arguments, so nobody can tell what to pass; "
            f"a decorator without functools.wraps does that. {mend}"
        )
    if is_bound and (not names or names[0] in arguments):
        return f"has no self. {mend}"
    if code.co_kwonlyargcount:
        return f"has keyword-only arguments, and the loop passes arguments by position. {mend}"
    if inner.__defaults__:
        return f"has a default value for an argument, which would never be used. {mend}"
    unknown = [name for name in own if name not in arguments]
    if unknown:
        return f"takes {', '.join(unknown)}, which {point} does not have. {mend}"
    return None
