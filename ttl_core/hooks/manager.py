"""The pluggy manager of a loop: the members of its list, and a compiled callable for each hook."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, cast

import pluggy

from ttl_core.arguments import did_you_mean
from ttl_core.errors import TTLError, UnknownPointError
from ttl_core.hooks.around import Scope
from ttl_core.hooks.compilation import (
    Signature,
    compile_around,
    compile_plain,
    compile_single,
    compile_traced,
    compile_wrapped,
    noop,
    traced_around,
)
from ttl_core.hooks.failures import Attribution, report_failure
from ttl_core.hooks.hook_methods import find_mark
from ttl_core.hooks.member import Member, Plugin
from ttl_core.hooks.provided_points import check_points
from ttl_core.hooks.trace import is_tracing, tracers
from ttl_core.hookspecs import POINTS, CallbackPoints

AROUND_POINTS = ("around_run", "around_epoch")


class LoopHooks:
    """The core hooks as attributes: called with positional arguments, they return nothing."""


class HookNamespace:
    """All hooks as attributes: called with keywords, they return the list of results.

    Each is compiled when it is first used. Look it up at each call: a callable that was kept calls
    the components that were in the list when it was looked up.
    """

    def __init__(self, compile_hook: Callable[[str], Callable[..., Any]]) -> None:
        self.__compile_hook = compile_hook

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.__compile_hook(name)


class HookManager(pluggy.PluginManager):
    """The manager that registers the members of a loop's list and compiles each hook.

    pluggy registers and checks; the order of registration decides nothing, the list does. When
    the list changes, all that was compiled is discarded and nothing else is done: the next call
    of a hook registers new members and compiles that one hook.

    Args:
        list_members: returns the members in list order, or raises an error about the list.
        list_unchecked: returns them without any check.
        find_provider: says which installed component, if any, provides a callback point.

    Attributes:
        hooks: the hooks that the loop calls.
        namespace: the hooks that every caller may use.
        attribution: attributes the exceptions of runs to components.
        lock: held while the list is edited and hooks are compiled, so that threads may do both.
    """

    def __init__(
        self,
        list_members: Callable[[], Sequence[Member]],
        list_unchecked: Callable[[], Sequence[Member]],
        find_provider: Callable[[str], str],
    ) -> None:
        super().__init__("ttl")
        self.add_hookspecs(CallbackPoints)
        self.hooks: Any = LoopHooks()
        self.namespace: Any = HookNamespace(self._compile_public)
        self.attribution = Attribution(self._find_candidates)
        self.lock = threading.RLock()
        self._list_members = list_members
        self._list_unchecked = list_unchecked
        self._find_provider = find_provider
        self._members: dict[object, Member] = {}
        self._spec_namespaces: list[Any] = []
        self._scopes: list[Scope] = []  # the run and the epochs under way, outermost first
        self._thread: int | None = None  # the one of the run under way
        self._has_late_wrappers = False
        self._n_changes = 0
        self._departed: list[pluggy.HookImpl] = []
        # by point and implementations, so that toggling back and forth compiles nothing
        self._compiled: dict[tuple[object, ...], Callable[..., Any]] = {}
        self._is_traced = is_tracing()
        if self._is_traced:
            self.add_hookcall_monitoring(*tracers())
        self.list_changed()

    # -- from the list to callables ---------------------------------------------------------

    def list_changed(self) -> None:
        """Discard every compiled hook, because the list or a member has changed."""
        with self.lock:
            self._is_current = False
            self._discard([*POINTS, *vars(self.hook)])
            if self._members and not self._scopes:
                self._release_departed()

    def toggled(self, members: Iterable[Member]) -> None:
        """Discard the hooks that members implement, because they were enabled or disabled."""
        points = {str(options["specname"]) for m in members for _, options in m.methods.values()}
        if self._scopes and points.intersection(AROUND_POINTS):
            self.list_changed()  # as every next hook call has to enter what is under way
        else:
            with self.lock:
                self._discard(points)

    def _discard(self, points: Iterable[str]) -> None:
        self._n_changes += 1
        for point in points:
            if point in POINTS:
                setattr(self.hooks, point, functools.partial(self._compile_and_call, point))
            vars(self.namespace).pop(point, None)

    def _compile_and_call(self, point: str, *args: object) -> object:
        with self._current(point):
            call = self._compile(point, "dropped", keyword_only=False)
            setattr(self.hooks, point, call)
        return call(*args)

    def _compile_public(self, point: str) -> Callable[..., Any]:
        with self._current(point):
            if not hasattr(self.hook, point):
                hint = did_you_mean(point, [*POINTS, *vars(self.hook)])
                raise UnknownPointError(
                    f"no component in the list provides the callback point {point!r}. "
                    f"{hint}{self._find_provider(point)}".rstrip()
                )
            first_only = getattr(self.hook, point).spec.opts["firstresult"]
            call = self._compile(point, "first" if first_only else "listed", keyword_only=True)
            setattr(self.namespace, point, call)
        return call

    @contextlib.contextmanager
    def _current(self, point: str) -> Iterator[None]:
        """Hold the lock inside a with block, in which the registered members are the list's.

        Args:
            point: the callback point that is about to be called.
        """
        self._update(point)
        with self.lock:
            while not self._is_current:  # since another thread has edited the list
                self._update(point)
            yield

    def _compile(
        self, point: str, results: Literal["dropped", "listed", "first"], keyword_only: bool
    ) -> Callable[..., Any]:
        implementations = self.implementations(point)
        key = (point, results, *map(id, implementations))
        if key not in self._compiled:
            self._compiled[key] = self._write(point, results, keyword_only, implementations)
        return self._compiled[key]

    def _write(
        self,
        point: str,
        results: Literal["dropped", "listed", "first"],
        keyword_only: bool,
        implementations: list[pluggy.HookImpl],
    ) -> Callable[..., Any]:
        if results == "dropped" and point in AROUND_POINTS:
            around = self.compile_around(point, ("loop",), implementations)
            return functools.partial(self._surround, point, implementations, around)
        if results == "dropped" and not implementations:
            return noop
        spec = getattr(self.hook, point).spec
        signature = Signature(point, spec.argnames, spec.kwargdefaults, results, keyword_only)
        if implementations and self._is_traced:
            return compile_traced(signature, implementations, self._hookexec)
        if any(impl.wrapper for impl in implementations):
            return compile_wrapped(signature, implementations)
        return compile_single(signature, implementations) or compile_plain(
            signature, implementations
        )

    def implementations(self, point: str) -> list[pluggy.HookImpl]:
        """Return the active implementations of a point in call order, wrappers first.

        Within wrappers, tryfirst, plain and trylast implementations the order is the list's.
        """
        position = {plugin: i for i, plugin in enumerate(self._members)}

        def rank(impl: pluggy.HookImpl) -> tuple[bool, int, int]:
            return not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin]

        active = (i for i in self._registered(point) if self.member_of(i).is_active)
        return sorted(active, key=rank)

    def points(self) -> list[str]:
        """Return all points, the core's first, in firing order."""
        self._update()
        return [*POINTS, *(point for point in vars(self.hook) if point not in POINTS)]

    def points_in_use(self) -> list[str]:
        """Return the points that an active component implements."""
        return [point for point in self.points() if self.implementations(point)]

    def is_implemented(self, point: str) -> bool:
        """Return whether an active component implements a point."""
        self._update()
        return bool(self.implementations(point))

    def compile_around(
        self, point: str, arguments: Sequence[str], wrappers: Sequence[pluggy.HookImpl]
    ) -> Callable[..., object]:
        """Return a function of some arguments and a body, which calls the body inside wrappers.

        Args:
            point: the name of the callback point.
            arguments: its arguments.
            wrappers: the wrappers, outermost first.
        """
        is_silent = point in AROUND_POINTS and not wrappers
        if self._is_traced and not is_silent:
            return traced_around(point, wrappers, self._hookexec)
        return compile_around(point, arguments, wrappers)

    # -- registration -----------------------------------------------------------------------

    def _update(self, point: str | None = None) -> None:
        """Register the members of the list, and enter what joined or was enabled in mid-run.

        Args:
            point: the callback point that is about to be called, if one is.
        """
        with self.lock:
            if not self._is_current:
                self._register_members({m.plugin: m for m in self._list_members()})
                self._is_current = self._has_late_wrappers = True
            is_entering = self._has_late_wrappers and self._thread == threading.get_ident()
            self._has_late_wrappers &= not is_entering
        if is_entering:  # not with the lock: it runs code of components
            self._enter_scopes(point)

    def _register_members(self, members: dict[object, Member]) -> None:
        namespaces = _unique(
            member.component.hookspecs for member in members.values() if member.points
        )
        known = self._members
        if [id(n) for n in namespaces] != [id(n) for n in self._spec_namespaces]:
            known = {}  # points have come or gone, and with them what registers at all
        for plugin in self._members.keys() - (members.keys() & known.keys()):
            self._unregister(plugin)
        if not known:
            self._exchange_points(namespaces)
        self._members = members
        self._compiled.clear()
        try:
            for plugin in members:
                if plugin not in known:
                    self.register(plugin)
        except BaseException:
            for plugin in members:  # so that the next hook call meets the same error
                if self.is_registered(plugin):
                    self.unregister(plugin)
            self._members = {}
            raise

    def _release_departed(self) -> None:
        """Unregister the members that are not in the list any more, so that they can be freed."""
        for plugin in self._members.keys() - {m.plugin for m in self._list_unchecked()}:
            self._unregister(plugin)
            del self._members[plugin]

    def _unregister(self, plugin: object) -> None:
        if self._scopes:  # one that left in the middle of its own hook may still fail in it
            self._departed += (impl for impl in self._all_registered() if impl.plugin is plugin)
        self._compiled.clear()
        self.unregister(plugin)

    def _exchange_points(self, namespaces: list[Any]) -> None:
        for point in vars(self.hook).keys() - set(POINTS):
            delattr(self.hook, point)
            vars(self.namespace).pop(point, None)
        for namespace in namespaces:
            self.add_hookspecs(namespace)
        self._spec_namespaces = namespaces

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the options that were found when the component joined, if the point is known."""
        _, options = self._members[plugin].methods.get(name, (None, None))
        return options if options and hasattr(self.hook, str(options["specname"])) else None

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        """Return the options of a hookspec without warnings, which are given once a class."""
        options = find_mark(inspect.getattr_static(module_or_class, name), "ttl_spec")
        if not options:
            return None
        return cast(
            pluggy.HookspecOpts, {**options, "warn_on_impl": None, "warn_on_impl_args": None}
        )

    def check(self, members: Sequence[Member]) -> None:
        """Check the callback points of a list that is about to become the loop's.

        Args:
            members: all its members.

        Raises:
            ComponentRejectedError: see `check_points`.
        """
        check_points(members, self._find_provider)

    def _registered(self, point: str) -> list[pluggy.HookImpl]:
        return cast(list[pluggy.HookImpl], getattr(self.hook, point).get_hookimpls())

    def _all_registered(self) -> list[pluggy.HookImpl]:
        return [impl for point in vars(self.hook) for impl in self._registered(point)]

    def member_of(self, impl: pluggy.HookImpl) -> Member:
        """Return the member whose implementation this is."""
        assert isinstance(impl.plugin, Plugin)
        return impl.plugin.member

    # -- runs and epochs under way ----------------------------------------------------------

    def _surround(
        self,
        point: str,
        wrappers: Sequence[pluggy.HookImpl],
        around: Callable[..., object],
        loop: object,
        body: Callable[[], object],
    ) -> None:
        """Call a run or an epoch inside the wrappers of all components."""
        scope = Scope(point, loop, [self.member_of(impl).component for impl in wrappers])
        self._thread = threading.get_ident()
        n_changes = self._n_changes

        def inner() -> None:
            if self._n_changes != n_changes:  # since a wrapper before its yield: as in mid-run
                self.list_changed()
            scope.run(self._scopes, body)

        try:
            around(loop, inner)
        finally:
            # where a nested epoch ends, the next hook call enters the one around it
            if any(self._find_outside(outer) for outer in self._scopes[1:][-1:]):
                self.list_changed()

    def _enter_scopes(self, point: str | None) -> None:
        """Enter the run and the epoch under way with components that are not in them yet.

        An epoch is entered by its own hook calls only, in which the loop variables tell its phase:
        not when one that is nested in it begins.
        """
        run, epoch = self._scopes[:1], self._scopes[1:][-1:]
        for scope in run if point == "around_epoch" else [*run, *epoch]:
            for impl in self._find_outside(scope):
                scope.enter(self.member_of(impl).component, impl)

    def _find_outside(self, scope: Scope) -> list[pluggy.HookImpl]:
        """Return the wrappers of components that do not surround a scope yet."""
        return [
            impl
            for impl in self.implementations(scope.point)
            if not scope.has_entered(self.member_of(impl).component)
        ]

    def end_run(self) -> None:
        """Release what was kept to attribute an exception of the run that has ended."""
        self.attribution.reset()
        self._departed.clear()

    # -- when a run fails -------------------------------------------------------------------

    def _find_candidates(self) -> list[pluggy.HookImpl]:
        """Return every implementation that may have raised; those of disabled ones last."""
        everyone = [*self._all_registered(), *self._departed]
        return sorted(everyone, key=lambda impl: not self.member_of(impl).is_active)

    def report_failure(self, loop: object, exception: BaseException) -> None:
        """Call on_exception of every component.

        Args:
            loop: the loop.
            exception: what its run is failing with.
        """
        with contextlib.suppress(TTLError):  # the failure may be about the list
            self._update()
        report_failure(self, loop, exception)


def _unique(values: Iterable[Any]) -> list[Any]:
    return list({id(value): value for value in values}.values())
