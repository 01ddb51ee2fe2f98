"""The list of a loop's components: names, order, enabled and disabled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ttl_core.arguments import describe
from ttl_core.components import environment
from ttl_core.components.component import Item, LoopComponent
from ttl_core.components.members import (
    assign_names,
    check_conditions,
    create_member,
    current_name,
    warn_of_order,
)
from ttl_core.components.named_list import NamedList
from ttl_core.components.order import constraints_of, insertion_index
from ttl_core.discovery import Spec
from ttl_core.errors import (
    ArgumentError,
    ComponentRejectedError,
    DuplicateComponentError,
    RunError,
    TTLError,
)
from ttl_core.hooks.explain import Explanation, explain_list, explain_points
from ttl_core.hooks.manager import HookManager
from ttl_core.hooks.member import Member

_Result = TypeVar("_Result")


class ComponentList(NamedList):
    """The components of a loop, in the order in which they are called.

    It is a list in every respect. Besides, a name or a spec becomes its component on entering, and
    look-up, membership and removal take a name in place of an index or a component. A change takes
    effect at the next hook call; a refused one changes nothing.

    Args:
        items: components, names of installed ones, or specs.
        manager: the manager of the loop.
        previous: the list that this one replaces; a component that is in both keeps its name.
    """

    def __init__(
        self, items: Iterable[Item], manager: HookManager, previous: ComponentList | None = None
    ) -> None:
        super().__init__()
        self._manager = manager
        # By the identity of the component. Members are shared with earlier lists of the loop, so
        # that a component is enabled or disabled in all of them; names are not.
        self._members: dict[int, Member] = dict(previous._members) if previous else {}
        self._names: dict[int, str] = dict(previous._names) if previous else {}
        self._entering: dict[int, Member] = {}
        self._warned_pairs: set[tuple[str, str]] = previous._warned_pairs if previous else set()
        self.extend(items)
        environment.warn_of_unknown_names(self._members.values())

    def replaced_by(self, items: Iterable[Item]) -> ComponentList:
        """Return the list that replaces this one in its loop: a new one, or an earlier one."""
        if isinstance(items, ComponentList) and items._manager is self._manager:
            if items is not self:
                items._edit(lambda _: None)  # checks it again, as members may have changed since
            return items
        return ComponentList(items, self._manager, previous=self)

    def __repr__(self) -> str:
        return f"[{', '.join(self.names())}]"

    def __str__(self) -> str:
        return explain_list(self.current_members(), self._manager)

    def _member_of(self, component: LoopComponent) -> Member:
        return self._members.get(id(component)) or self._entering[id(component)]

    def _name_of(self, component: LoopComponent) -> str:
        return self._names[id(component)]

    def _current_name(self, name: str) -> str:
        return current_name(name, self.names(), self._members.values())

    def current_members(self) -> list[Member]:
        """Return the members in order, by their names in this list, unchecked."""
        members = [self._member_of(component) for component in self]
        for member in members:
            member.name = self._names[id(member.component)]
        return members

    def members(self) -> list[Member]:
        """Return the members in order, checked against one another, for the manager.

        Raises:
            DuplicateComponentError: a component is in the list twice.
            RequirementError: a component is active, but one that it requires is not.
            ConflictError: a component is active beside one that it cannot work with.
            ComponentRejectedError: no component provides a callback point that is implemented.
        """
        members = self.current_members()
        for i, member in enumerate(members):
            if member in members[:i]:
                raise DuplicateComponentError(
                    f"{member} is in the list twice, the second time at {i}, and would be called "
                    "twice. Remove one, or add a second object"
                )
        self._check(members)
        return members

    def manifest(self) -> list[dict[str, Any]]:
        """Return what is in the list as data. See `TrainTestLoop.manifest`."""
        return [
            {"position": i, **member.record()} for i, member in enumerate(self.current_members())
        ]

    def explain(self, point: str | None = None) -> str:
        """Return the call order of a point and its reasons. See `TrainTestLoop.explain`."""
        return Explanation(explain_points(point, self.current_members(), self._manager))

    # -- entering ---------------------------------------------------------------------------

    def _edit(self, change: Callable[[list[LoopComponent]], _Result]) -> _Result:
        try:
            with self._manager.lock:
                return self._apply(change)
        finally:
            self._entering.clear()

    def _apply(self, change: Callable[[list[LoopComponent]], _Result]) -> _Result:
        # a copy first, so that a refused change leaves the list as it was
        after = list(self)
        result = change(after)
        # A component that is there twice is half of a swap, which takes the other one out for a
        # moment: that one is not forgotten, and the list is checked when the swap is complete.
        members = {id(component): self._member_of(component) for component in after}
        is_swapped = len(self) > len({id(component) for component in self})
        is_swapping = len(members) < len(after)
        reserved = self._names if is_swapped or is_swapping else {}
        names = assign_names(members, self._names, reserved)
        disabled_names = environment.disabled_names()
        for key, member in members.items():
            member.name = names[key]
            member.is_disabled_by_environment = environment.is_listed(member, disabled_names)
        if not is_swapping:
            leaving = [member for key, member in self._members.items() if key not in members]
            self._check(list(members.values()), leaving)
        warn_of_order(list(members.values()), self._warned_pairs)
        list.__setitem__(self, slice(None), after)
        self._members = self._members | members if is_swapping else members
        self._names = self._names | names if is_swapping else names
        self._manager.list_changed()
        return result

    def _check(self, members: Sequence[Member], leaving: Sequence[Member] = ()) -> None:
        check_conditions(members)
        self._manager.check(members, leaving)

    def _enter(self, item: Item) -> LoopComponent:
        if isinstance(item, LoopComponent) and id(item) in self._members:
            return item
        member = create_member(item)
        component: LoopComponent = member.component
        self._entering[id(component)] = member
        return component

    def _enter_all(self, items: Iterable[Item]) -> list[LoopComponent]:
        if isinstance(items, Mapping):
            raise ComponentRejectedError(
                f"components are a mapping, {describe(items)}, not a list. Write "
                "[use('ema', decay=0.99), ...], or from_config([...]) for what a file holds"
            )
        if isinstance(items, str | Spec | LoopComponent) or not isinstance(items, Iterable):
            raise ComponentRejectedError(
                f"{items!r} is not a list of components. Write [{items!r}] to give one"
            )
        return [self._enter(item) for item in items]

    # -- order ------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        """Insert a component where its author's hints, and those of the others, place it.

        That is before the first one that has to be after it, else at the end.

        Args:
            item: the component, its name, or a spec.
        """
        component = self._enter(item)
        members = [*self.current_members(), self._member_of(component)]
        at = insertion_index(len(self), constraints_of(members))
        self._edit(lambda after: after.insert(at, component))

    def move(
        self,
        item: LoopComponent | str,
        *,
        before: LoopComponent | str | None = None,
        after: LoopComponent | str | None = None,
    ) -> None:
        """Move a component to just before or just after another one.

        Args:
            item: the component, or its name.
            before: the one to move it before.
            after: the one to move it after, instead.

        Raises:
            ArgumentError: not exactly one of `before` and `after` is given, or it is `item`.
            UnknownNameError: one of them is not in the list.
        """
        target = before if after is None else after
        if target is None or (before is not None and after is not None):
            raise ArgumentError("move() takes exactly one of before= and after=")
        moved, beside = self[self.index(item)], self[self.index(target)]
        if moved is beside:
            raise ArgumentError(f"{item!r} cannot be moved before or after itself")

        def change(order: list[LoopComponent]) -> None:
            order[:] = [c for c in order if c is not moved]
            at = next(i for i, c in enumerate(order) if c is beside)
            order.insert(at if after is None else at + 1, moved)

        self._edit(change)

    # -- toggling --------------------------------------------------------------------------

    def enable(self, *items: LoopComponent | str) -> None:
        """Enable components.

        Args:
            *items: the components, or their names.

        Raises:
            UnknownNameError: one is not in the list.
            RunError: the environment variable TTL_DISABLE disables it.
            RequirementError: it requires one that is disabled.
            ConflictError: it cannot work beside one that is enabled.
        """
        members = self._found(items)
        for member in members:
            if member.is_disabled_by_environment:
                raise RunError(
                    f"{member} cannot be enabled: the environment variable TTL_DISABLE="
                    f"{environment.variable()} disables it"
                )
        self._toggle(members, to=True)

    def disable(self, *items: LoopComponent | str) -> None:
        """Disable components, which keep their place and their state.

        Args:
            *items: the components, or their names.

        Raises:
            UnknownNameError: one is not in the list.
            RequirementError: one that is enabled requires it.
        """
        self._toggle(self._found(items), to=False)

    def is_enabled(self, item: LoopComponent | str) -> bool:
        """Return whether a component, given itself or its name, is enabled."""
        return self._found([item])[0].is_active

    @contextmanager
    def disabled(self, *items: LoopComponent | str) -> Iterator[None]:
        """Disable components inside a with block.

        Args:
            *items: the components, or their names.
        """
        were_enabled = [member for member in self._found(items) if member.is_enabled]
        self._toggle(were_enabled, to=False)
        try:
            yield
        except BaseException:  # then without a check, whose error would hide this one
            for member in were_enabled:
                member.is_enabled = True
            self._manager.list_changed()
            raise
        self._toggle(were_enabled, to=True)

    def _found(self, items: Iterable[LoopComponent | str]) -> list[Member]:
        # a component is found at once, a name by a search
        return [
            self._members.get(id(item)) or self._member_of(self[self.index(item)]) for item in items
        ]

    def _toggle(self, members: list[Member], to: bool) -> None:
        with self._manager.lock:
            self._set_enabled(members, to)

    def _set_enabled(self, members: list[Member], to: bool) -> None:
        changed = [member for member in members if member.is_enabled != to]
        for member in changed:
            member.is_enabled = to
        try:
            if changed and any(member.has_conditions for member in self._members.values()):
                check_conditions(self.current_members())
        except TTLError:
            for member in changed:
                member.is_enabled = not to
            raise
        self._manager.toggled(changed)
