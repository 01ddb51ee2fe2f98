"""What pluggy does for a loop: it registers the members of the list and the points they provide."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pluggy

from ttl_core.hooks.hook_methods import find_mark
from ttl_core.hooks.member import Member, Plugin
from ttl_core.hooks.provided_points import check_points
from ttl_core.hookspecs import POINTS, CallbackPoints


class Registry(pluggy.PluginManager):
    """The pluggy manager that registers the members of a list.

    The order of registration decides nothing, the list does.

    Args:
        find_provider: says which installed component, if any, provides a callback point.
    """

    def __init__(self, find_provider: Callable[[str], str]) -> None:
        super().__init__("ttl")
        self.add_hookspecs(CallbackPoints)
        self._find_provider = find_provider
        self._is_main = True  # whether this is the main process of a group
        self._members: dict[object, Member] = {}  # by plugin, in list order
        self._spec_namespaces: list[Any] = []
        self._unwrapped: list[tuple[pluggy.HookImpl, Callable[..., Any]]] = []  # as registered
        self._ordered: dict[str, list[tuple[pluggy.HookImpl, Member]]] = {}  # by point

    def implementations(self, point: str) -> list[pluggy.HookImpl]:
        """Return the active implementations of a point in call order, wrappers first.

        Within wrappers, tryfirst, plain and trylast implementations the order is the list's.
        """
        if point not in self._ordered:
            position = {plugin: i for i, plugin in enumerate(self._members)}

            def rank(impl: pluggy.HookImpl) -> tuple[bool, int, int]:
                return not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin]

            ordered = sorted(self.registered(point), key=rank)
            self._ordered[point] = [(impl, self.member_of(impl)) for impl in ordered]
        return [impl for impl, member in self._ordered[point] if self.is_called(member)]

    def is_called(self, member: Member) -> bool:
        """Return whether the hooks of a member are called."""
        return member.is_active and not self.is_left_out(member)

    def is_left_out(self, member: Member) -> bool:
        """Return whether a member belongs to the main process of a group, and this is another."""
        return member.is_main_only and not self._is_main

    def unchecked(self, point: str) -> list[Member]:
        """Return the members whose result at a point has not been checked yet.

        It is checked at the first call, in a function of its own: later calls cost nothing.
        """
        members = (self.member_of(i) for i in self.implementations(point) if not i.wrapper)
        return [member for member in members if point not in member.checked_points]

    def register_members(self, members: dict[object, Member]) -> None:
        """Register what joined and unregister what left since the last call.

        Args:
            members: the members of the list by their plugins, in list order.

        Raises:
            BaseException: whatever pluggy refuses; then nothing is registered.
        """
        namespaces = _unique(
            member.component.hookspecs for member in members.values() if member.points
        )
        known = self._members
        if [id(n) for n in namespaces] != [id(n) for n in self._spec_namespaces]:
            known = {}  # points have come or gone, and with them what registers at all
        for plugin in self._members.keys() - (members.keys() & known.keys()):
            self.unregister(plugin)
        if not known:
            self._exchange_points(namespaces)
        self._members = members
        self._ordered.clear()
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

    def wrap_implementations(self) -> None:
        """Replace implementations by what active components with `wrap_hookimpl` return for them.

        The first of these components in the list is the outermost one.
        """
        for impl, function in self._unwrapped:
            _set_function(impl, function)
        self._unwrapped = []
        wrapping = [m for m in self._members.values() if m.wraps_others and self.is_called(m)]
        for impl in self.all_registered() if wrapping else ():
            self._unwrapped.append((impl, impl.function))
            owner, function = self.member_of(impl), impl.function
            for member in reversed(wrapping):
                if member is not owner:
                    function = member.component.wrap_hookimpl(
                        function,
                        component=owner.name,
                        point=str(impl.opts["specname"]),
                        is_wrapper=impl.wrapper,
                    )
            _set_function(impl, function)

    def release(self, plugins: Iterable[object]) -> None:
        """Unregister the members that have left the list, so that they can be freed."""
        for plugin in plugins:
            self.unregister(plugin)
            del self._members[plugin]

    def unregister(self, plugin: Any = None, name: str | None = None) -> Any:
        """Unregister a component."""
        self._ordered.clear()
        return super().unregister(plugin, name)

    def _exchange_points(self, namespaces: list[Any]) -> None:
        for point in vars(self.hook).keys() - set(POINTS):
            delattr(self.hook, point)
        for namespace in namespaces:
            self.add_hookspecs(namespace)
        self._spec_namespaces = namespaces

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return the options that were found when the component joined, if the point is known."""
        _, options = self._members[plugin].methods.get(name, (None, None))
        return options if options and hasattr(self.hook, str(options["specname"])) else None

    def parse_hookspec_opts(self, module_or_class: Any, name: str) -> pluggy.HookspecOpts | None:
        """Return the options of a hookspec without warnings, which are given once a class."""
        if module_or_class is CallbackPoints:  # as for each loop that is made
            spec = vars(CallbackPoints).get(name)
        else:
            spec = inspect.getattr_static(module_or_class, name)
        options = find_mark(spec, "ttl_spec")
        if not options:
            return None
        return cast(
            pluggy.HookspecOpts, {**options, "warn_on_impl": None, "warn_on_impl_args": None}
        )

    def check(self, members: Sequence[Member], leaving: Sequence[Member] = ()) -> None:
        """Check the callback points of a list that is about to become the loop's.

        Args:
            members: all its members.
            leaving: those of the loop's list that are not in it.

        Raises:
            ComponentRejectedError: see `check_points`.
        """
        check_points(members, self._find_provider, leaving)

    def registered(self, point: str) -> list[pluggy.HookImpl]:
        """Return all implementations of a point, those of disabled components too."""
        return cast(list[pluggy.HookImpl], getattr(self.hook, point).get_hookimpls())

    def all_registered(self) -> list[pluggy.HookImpl]:
        """Return all implementations of all points."""
        return [impl for point in vars(self.hook) for impl in self.registered(point)]

    def member_of(self, impl: pluggy.HookImpl) -> Member:
        """Return the member whose implementation this is."""
        assert isinstance(impl.plugin, Plugin)
        return impl.plugin.member


def _set_function(impl: pluggy.HookImpl, function: Callable[..., Any]) -> None:
    """Set what pluggy, and what is compiled, call for an implementation.

    A copy of it with another function would be another implementation where it is compared.
    """
    impl.function = function  # type: ignore[misc]  # final, but for type checkers only


def _unique(values: Iterable[Any]) -> list[Any]:
    return list({id(value): value for value in values}.values())
