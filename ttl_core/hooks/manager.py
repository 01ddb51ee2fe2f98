"""The hooks of a loop: registered from its list, and compiled when they are first called.

Compiled hooks, the runs and epochs under way and what is registered change together, under one
lock. So they are in one module, which is a little longer than others.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pluggy

from ttl_core.errors import RunError, TTLError, UnknownPointError
from ttl_core.hooks.around import Scope
from ttl_core.hooks.compilation import (
    Results,
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
from ttl_core.hooks.member import Member
from ttl_core.hooks.namespace import HookNamespace, LoopHooks
from ttl_core.hooks.provided_points import explain_missing
from ttl_core.hooks.registry import Registry
from ttl_core.hooks.trace import is_tracing, tracers
from ttl_core.hookspecs import POINTS

AROUND_POINTS = ("around_run", "around_epoch")


class HookManager(Registry):
    """The manager that keeps the hooks of a loop what its list says.

    When the list changes, all that was compiled is discarded and nothing else is done: the next
    call of a hook registers new members and compiles that one hook.

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
        super().__init__(find_provider)
        self.hooks: Any = LoopHooks()
        self.namespace: Any = HookNamespace(self._compile_public)
        self.attribution = Attribution(self._find_candidates)
        self.lock = threading.RLock()
        self._list_members = list_members
        self._list_unchecked = list_unchecked
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
                self.release(self._members.keys() - {m.plugin for m in self._list_unchecked()})

    def set_is_main(self, is_main: bool) -> None:
        """Set whether this is the main process of a group, on which depends what is called."""
        if is_main != self._is_main:
            self._is_main = is_main
            self.list_changed()

    def toggled(self, members: Iterable[Member]) -> None:
        """Discard the hooks that members implement, because they were enabled or disabled."""
        members = list(members)
        points = {str(options["specname"]) for m in members for _, options in m.methods.values()}
        # list_changed(): as every next hook call has to enter what is under way
        if (self._scopes and points.intersection(AROUND_POINTS)) or any(
            member.wraps_others for member in members
        ):
            self.list_changed()
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
            unchecked = [] if self._is_traced else self.unchecked(point)
            if unchecked:  # until all of them have returned once
                call = self._write(point, "checked", False, self.implementations(point))
            else:
                call = self._compile(point, "dropped", keyword_only=False)
                setattr(self.hooks, point, call)
        result = call(*args)
        for member in unchecked:
            member.checked_points.add(point)
        return result

    def _compile_public(self, point: str) -> Callable[..., Any]:
        with self._current(point):
            if not hasattr(self.hook, point):
                hint = explain_missing(point, list(self._members.values()), self._find_provider)
                raise UnknownPointError(
                    f"no component in the list provides the callback point {point!r}. {hint}"
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

    def _compile(self, point: str, results: Results, keyword_only: bool) -> Callable[..., Any]:
        implementations = self.implementations(point)
        key = (point, results, *map(id, implementations))
        if key not in self._compiled:
            self._compiled[key] = self._write(point, results, keyword_only, implementations)
        return self._compiled[key]

    def _write(
        self,
        point: str,
        results: Results,
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
                self._compiled.clear()
                self.register_members({m.plugin: m for m in self._list_members()})
                self.wrap_implementations()
                self._is_current = self._has_late_wrappers = True
            is_entering = self._has_late_wrappers and self._thread == threading.get_ident()
            self._has_late_wrappers &= not is_entering
        if is_entering:  # not with the lock: it runs code of components
            self._enter_scopes(point)

    def unregister(self, plugin: Any = None, name: str | None = None) -> Any:
        """Unregister a component; one that leaves in its own hook may still fail in it."""
        if self._scopes:
            self._departed += (impl for impl in self.all_registered() if impl.plugin is plugin)
        self._compiled.clear()
        return super().unregister(plugin, name)

    # -- runs and epochs under way ----------------------------------------------------------

    def check_thread(self, method: str) -> None:
        """Check that this is the thread of the run under way, where a method ends it.

        Args:
            method: the name of the method of the loop.

        Raises:
            RunError: it is another one.
        """
        if self._thread != threading.get_ident():
            raise RunError(
                f"{method}() was called in the thread {threading.current_thread().name!r}, which "
                "is not the one of the run. Set a flag there, and call it in a hook of a "
                "component that reads the flag, such as on_safe_point"
            )

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
        everyone = [*self.all_registered(), *self._departed]
        return sorted(everyone, key=lambda impl: not self.is_called(self.member_of(impl)))

    def report_failure(self, loop: object, exception: BaseException) -> None:
        """Call on_exception of every component.

        Args:
            loop: the loop.
            exception: what its run is failing with.
        """
        with contextlib.suppress(TTLError):  # the failure may be about the list
            self._update()
        report_failure(self, loop, exception)
