"""The pluggy manager of a loop: knows the members of its list, and compiles each hook."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import sys
import time
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Literal, cast

import pluggy

from ttl_core import calls
from ttl_core.arguments import did_you_mean
from ttl_core.checks import HookMethods, check_method, spec_arguments
from ttl_core.errors import ComponentRejectedError, TTLError, UnknownPointError
from ttl_core.hookspecs import POINTS, CallbackPoints
from ttl_core.ordering import Hints


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
        key: its entry point's name, by which hints and points know it.
        own_name: the name it asks for.
        find_distribution: finds the name and version of the distribution it comes from, if any.
        config: the configuration it was made with, by name.
        hints: what its author says about its place.
        methods: its hook methods.
        points: the callback points that it brings.
        name: its name in the list: its own, or one with a number where that was taken.
        was_in_list: whether that name has been fixed.
        is_enabled: whether the code wants it called.
        is_barred: whether the environment forbids that.
        plugin: what pluggy knows it as.
    """

    component: Any
    key: str
    own_name: str
    find_distribution: Callable[[], tuple[str, str] | None]
    config: Mapping[str, Any] = field(default_factory=dict)
    hints: Hints = field(default_factory=Hints)
    methods: HookMethods = field(default_factory=dict)
    points: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    was_in_list: bool = False
    is_enabled: bool = True
    is_barred: bool = False

    def __post_init__(self) -> None:
        self.name = self.own_name
        self.plugin = _Plugin(self)

    @property
    def is_on(self) -> bool:
        """Whether it is called."""
        return self.is_enabled and not self.is_barred

    def origin(self) -> str:
        """Return where it comes from: distribution and version, or its class."""
        return " ".join(self.find_distribution() or [_qualified_name(type(self.component))])

    def __str__(self) -> str:
        kind = "" if self.find_distribution() else "class "
        return f"component {self.name!r} ({kind}{self.origin()})"

    def record(self) -> dict[str, Any]:
        """Return what the list knows as data: JSON values as they are, others by their names."""
        distribution, version = self.find_distribution() or (None, None)
        return {
            "name": self.name,
            "class": _qualified_name(type(self.component)),
            "distribution": distribution,
            "version": version,
            "enabled": self.is_on,
            "config": _as_json(self.config),
        }


class _Table:
    """Hold a callable for each hook, as attributes."""


class _Relay(_Table):
    """Hold the hooks that anybody may call, compiled when somebody does."""

    def __init__(self, find: Callable[[str], Callable[..., Any]]) -> None:
        self.__find = find

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.__find(name)


class HookManager(pluggy.PluginManager):
    """Register the members of one loop's list and compile each hook for their order.

    pluggy registers and checks; the order in which it was told of plugins decides nothing, the
    list does. When the list changes, what was compiled is thrown away and nothing else is done:
    the next call of a hook registers who came and compiles that one hook.

    Args:
        list_members: returns the members in list order, or raises an error about the list.
        find_provider: says which installed component, if any, brings a callback point.

    Attributes:
        calls: for the loop: each core hook with positional arguments, results dropped.
        relay: for everybody: each hook with keyword arguments, returning the list of results.
    """

    def __init__(
        self,
        list_members: Callable[[], Sequence[Member]],
        find_provider: Callable[[str], str],
    ) -> None:
        super().__init__("ttl")
        self.add_hookspecs(CallbackPoints)
        self.calls: Any = _Table()
        self.relay: Any = _Relay(self._public_call)
        self._list_members = list_members
        self._find_provider = find_provider
        self._members: dict[object, Member] = {}
        self._namespaces: list[Any] = []
        # whoever left in the middle of its own hook may still fail in it
        self._departed: deque[pluggy.HookImpl] = deque(maxlen=256)
        self._is_traced = os.environ.get("TTL_TRACE") == "1"
        if self._is_traced:
            self.add_hookcall_monitoring(*_tracers())
        self.list_changed()

    # -- from the list to callables ---------------------------------------------------------

    def list_changed(self) -> None:
        """Forget every compiled hook, because the list or a member has changed."""
        self._is_current = False
        for point in POINTS:
            setattr(self.calls, point, functools.partial(self._first_call, point))
        for point in vars(self.hook):
            vars(self.relay).pop(point, None)

    def _first_call(self, point: str, *args: object) -> object:
        self._register_members()
        call = self._compile(point, "dropped", keyword_only=False)
        setattr(self.calls, point, call)
        return call(*args)

    def _public_call(self, point: str) -> Callable[..., Any]:
        self._register_members()
        if not hasattr(self.hook, point):
            raise UnknownPointError(
                f"no component in the list brings the callback point {point!r}. "
                f"{self._who_brings(point, vars(self.hook))}"
            )
        first_only = getattr(self.hook, point).spec.opts["firstresult"]
        call = self._compile(point, "first" if first_only else "listed", keyword_only=True)
        setattr(self.relay, point, call)
        return call

    def _compile(
        self, point: str, results: Literal["dropped", "listed", "first"], keyword_only: bool
    ) -> Callable[..., Any]:
        implementations = self.implementations(point)
        if results == "dropped" and point.startswith("around_"):
            if not implementations:
                return lambda _loop, body: body()
            return lambda loop, body: calls.surround(
                point, implementations, self._hookexec, body, {"loop": loop}
            )
        if results == "dropped" and not implementations:
            return calls.nothing
        spec = getattr(self.hook, point).spec
        hook = calls.Hook(point, spec.argnames, spec.kwargdefaults, results, keyword_only)
        if any(impl.wrapper for impl in implementations) or (implementations and self._is_traced):
            return calls.wrapped(hook, implementations, self._hookexec)
        return calls.direct(hook, implementations) or calls.flat(hook, implementations)

    def implementations(self, point: str) -> list[pluggy.HookImpl]:
        """Return the implementations of a point in call order, wrappers first.

        Within wrappers, tryfirst, plain and trylast implementations the order is the list's.
        """
        position = {plugin: i for i, plugin in enumerate(self._members)}

        def place(impl: pluggy.HookImpl) -> tuple[bool, int, int]:
            return not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin]

        return sorted((i for i in self._registered(point) if self.member_of(i).is_on), key=place)

    def points(self) -> list[str]:
        """Return all points, the core's first, in firing order."""
        self._register_members()
        return [*POINTS, *(point for point in vars(self.hook) if point not in POINTS)]

    def points_in_use(self) -> list[str]:
        """Return the points that somebody implements."""
        return [point for point in self.points() if self.implementations(point)]

    def _register_members(self) -> None:
        if self._is_current:
            return
        members: dict[object, Member] = {m.plugin: m for m in self._list_members()}
        namespaces = _unique(
            member.component.hookspecs for member in members.values() if member.points
        )
        known = self._members
        if [id(n) for n in namespaces] != [id(n) for n in self._namespaces]:
            known = {}  # points have come or gone, and with them what registers at all
        for plugin in self._members.keys() - (members.keys() & known.keys()):
            self._departed.extend(impl for impl in self._everything() if impl.plugin is plugin)
            self.unregister(plugin)
        if not known:
            self._exchange_points(namespaces)
        self._members = members
        for plugin in members:
            if plugin not in known:
                self.register(plugin)
        self._is_current = True

    def _exchange_points(self, namespaces: list[Any]) -> None:
        for point in vars(self.hook).keys() - set(POINTS):
            delattr(self.hook, point)
            vars(self.relay).pop(point, None)
        for namespace in namespaces:
            self.add_hookspecs(namespace)
        self._namespaces = namespaces

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the options that were found when the component joined, if the point is there."""
        _, options = self._members[plugin].methods.get(name, (None, None))
        return options if options and hasattr(self.hook, str(options["specname"])) else None

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        """Return the options of a hookspec but for warnings, which `check` gives once a class."""
        options = super().parse_hookspec_opts(module_or_class, name)
        return options and {**options, "warn_on_impl": None, "warn_on_impl_args": None}

    def _registered(self, point: str) -> list[pluggy.HookImpl]:
        return cast(list[pluggy.HookImpl], getattr(self.hook, point).get_hookimpls())

    def _everything(self) -> list[pluggy.HookImpl]:
        return [impl for point in vars(self.hook) for impl in self._registered(point)]

    def member_of(self, impl: pluggy.HookImpl) -> Member:
        """Return the member whose implementation this is."""
        assert isinstance(impl.plugin, _Plugin)
        return impl.plugin.member

    # -- when the list is about to change ---------------------------------------------------

    def check(self, members: Sequence[Member]) -> None:
        """Check the callback points that members bring against those that they implement.

        Args:
            members: all members that a list shall have.

        Raises:
            ComponentRejectedError: two bring the same point, nobody brings one that somebody
                implements, or an implementation does not fit.
        """
        brought: dict[str, tuple[Member, Callable[..., Any]]] = {}
        for member in members:
            for point, spec in member.points.items():
                other, other_spec = brought.setdefault(point, (member, spec))
                if other_spec is not spec:
                    raise ComponentRejectedError(
                        f"{member} cannot join: it brings the callback point {point!r}, and so "
                        f"does {other}. Take one of them out"
                    )
        for member in members:
            for point in brought.keys() - member.methods.keys():
                if inspect.isroutine(inspect.getattr_static(member.component, point, None)):
                    raise ComponentRejectedError(
                        f"{member} cannot join: its {point} has the name of a callback point of "
                        f"{brought[point][0]}, but is not marked. Put @hookimpl above it"
                    )
            for name, (method, options) in member.methods.items():
                point = str(options["specname"])
                if point in brought:
                    spec = brought[point][1]
                    check_method(method, name, options, spec_arguments(spec), member)
                    _warn_if_deprecated(member, method, point, spec)
                elif point not in POINTS and not options["optionalhook"]:
                    raise ComponentRejectedError(
                        f"{member} cannot join: its {name} is no callback point of the core or of "
                        f"a component in the list. {self._who_brings(point, brought)}"
                    )

    def _who_brings(self, point: str, brought: Iterable[str]) -> str:
        return did_you_mean(point, [*POINTS, *brought]) + self._find_provider(point)

    # -- when a run fails -------------------------------------------------------------------

    def note_failure(
        self, exception: BaseException, epoch: CodeType, go_on: CodeType, validate: CodeType
    ) -> None:
        """Add a note to an exception that says which component raised it, where and when.

        Args:
            exception: what a run is about to fail with.
            epoch: the code of the loop's function that runs an epoch. Below its frames in a
                traceback lie the data of that epoch, or a hook.
            go_on: the code of the loop's function that puts a state back. Below its frames lies no
                hook.
            validate: the code of the loop's function that components may call.
        """
        if any(note.startswith("ttl: raised by") for note in getattr(exception, "__notes__", ())):
            return  # who knew better has said it
        everyone = sorted(
            [*self._everything(), *self._departed],
            key=lambda impl: not self.member_of(impl).is_on,  # who is off is blamed last
        )
        impl: pluggy.HookImpl | None = None
        calling: pluggy.HookImpl | None = None
        position: dict[str, Any] = {}
        for frame, line in traceback.walk_tb(exception.__traceback__):
            if frame.f_code is validate:
                calling = impl
            elif frame.f_code is epoch:
                position, impl = frame.f_locals, None
            elif frame.f_code is go_on:
                impl = None
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
            if implementations:
                calls.surround("on_exception", wrappers, self._hookexec, reach_everybody, given)
        reach_everybody()  # of whom a wrapper that failed before its yield has kept us


_warned: weakref.WeakKeyDictionary[type, set[str]] = weakref.WeakKeyDictionary()
"""Of which deprecations the author of a class has been told already."""


def _warn_if_deprecated(
    member: Member, method: Callable[..., Any], point: str, spec: Callable[..., Any]
) -> None:
    """Tell an author, once a class and in a way that is shown, of a deprecation in a hookspec."""
    options = spec.ttl_spec  # type: ignore[attr-defined]
    inner = inspect.unwrap(method)
    code = getattr(inner, "__func__", inner).__code__
    told = _warned.setdefault(type(member.component), set())
    about = {point: options["warn_on_impl"]}
    for argument, warning in (options["warn_on_impl_args"] or {}).items():
        if argument in code.co_varnames[: code.co_argcount]:
            about[f"{point}({argument})"] = warning
    for what, warning in about.items():
        if warning is not None and what not in told:
            told.add(what)
            text = f"{member} implements {what}, which is deprecated: {warning}"
            # not a DeprecationWarning, which Python shows to nobody but the code in __main__
            warnings.warn_explicit(text, FutureWarning, code.co_filename, code.co_firstlineno)


def _unique(values: Iterable[Any]) -> list[Any]:
    return list({id(value): value for value in values}.values())


def _tracers() -> tuple[Callable[..., None], Callable[..., None]]:
    """Return what pluggy calls before and after each hook call to print it, nested, with time."""
    started: list[float] = []
    is_open = False  # whether the newest line still waits for its time

    def before(point: str, *_: object) -> None:
        nonlocal is_open
        if is_open:
            print(file=sys.stderr)
        print(f"{'  ' * len(started)}{point}", end="", file=sys.stderr, flush=True)
        is_open = True
        started.append(time.perf_counter())

    def after(_outcome: object, point: str, *_: object) -> None:
        nonlocal is_open
        took = f"{(time.perf_counter() - started.pop()) * 1e3:.3f} ms"
        indent = "" if is_open else "  " * len(started) + f"{point} took"
        print(f"{indent} {took}", file=sys.stderr, flush=True)
        is_open = False

    return before, after


def _qualified_name(value: Any) -> str:
    """Return the name of a class or function, or of an object's class."""
    named = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else named.__qualname__


def _as_json(value: Any) -> Any:
    """Return JSON values as they are and others by qualified name."""
    match value:
        case None | bool():
            return value
        case int():  # subclasses, as enums and NumPy's numbers are, become what they stand for
            return int(value)
        case str():
            return str.__str__(value)
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case list() | tuple():
            return [_as_json(item) for item in value]
        case Mapping():
            return {str(key): _as_json(item) for key, item in value.items()}
        case _:
            return _qualified_name(value)


def _add_note(exception: BaseException, note: str) -> None:
    with contextlib.suppress(Exception):  # an exception may have made its notes unusable
        exception.add_note(f"ttl: {note}")
