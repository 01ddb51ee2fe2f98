"""The base class of components, and the list that holds them: order, names, on and off."""

from __future__ import annotations

import graphlib
import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, SupportsIndex, TypeAlias, TypeVar, overload

from ttl_core import discovery
from ttl_core.arguments import did_you_mean, user_stacklevel
from ttl_core.checks import hook_methods, provided_points, read_hints
from ttl_core.discovery import Offer, Spec, use
from ttl_core.errors import (
    ArgumentError,
    ComponentRejectedError,
    DuplicateComponentError,
    OrderCycleError,
    OrderWarning,
    PluginError,
    RequirementError,
    RunError,
    UnknownNameError,
)
from ttl_core.explain import explain_list, explain_points
from ttl_core.hookspecs import CallbackPoints
from ttl_core.manager import HookManager, Member
from ttl_core.ordering import (
    Edge,
    Hints,
    arranged,
    edges,
    free_name,
    kebab_case,
    place_for,
)

_Result = TypeVar("_Result")


class LoopComponent(CallbackPoints):
    """Be the base class of everything that a loop calls.

    Override the callback points that you need; the others cost nothing. A method with the name of
    a point needs no decorator; `@hookimpl(...)` is there for options.

    Attributes:
        name: the name in a list; None means the entry point's name, or the class's.
        hookspecs: a module or class of functions marked with `@hookspec`: callback points that
            this component brings. Their names begin with the component's.
        after: names of components that this one comes after, where they are present.
        before: names of components that this one comes before, where they are present.
        requires: names of components that have to be present.

    Example:
        >>> class CountBatches(LoopComponent):
        ...     def on_epoch_begin(self, loop):
        ...         self.count = 0
        ...
        ...     def on_batch_end(self, loop):
        ...         self.count += 1
    """

    name: str | None = None
    hookspecs: ClassVar[Any] = None
    after: ClassVar[str | Sequence[str]] = ()
    before: ClassVar[str | Sequence[str]] = ()
    requires: ClassVar[str | Sequence[str]] = ()


Item: TypeAlias = LoopComponent | str | Spec
"""What may enter a list: a component, the name of an installed one, or a spec of one."""


class ComponentList(list[LoopComponent]):
    """Hold the components of a loop, in the order in which they are called.

    It is a list in every respect. Besides, a name or a spec becomes its component on entering,
    look-up, membership and removal take a name in place of an index or a component, and components
    are told apart by identity. A change takes effect at the next hook call; a refused one changes
    nothing.

    Args:
        items: components, names of installed ones, or specs.
        manager: the manager of the loop.
        previous: the list that this one replaces: whoever stands in both keeps its name.
    """

    def __init__(
        self,
        items: Iterable[Item],
        manager: HookManager,
        previous: ComponentList | None = None,
    ) -> None:
        super().__init__()
        self._manager = manager
        self._members: dict[int, Member] = dict(previous._members) if previous else {}
        self._warned_pairs: set[tuple[str, str]] = previous._warned_pairs if previous else set()
        self.extend(items)
        _warn_of_unknown_names(self)

    def replaced_by(self, items: Iterable[Item]) -> ComponentList:
        """Return the list that a loop shall have after this one: a new one, or one of its old."""
        if isinstance(items, ComponentList) and items._manager is self._manager:
            if items is not self:
                items._edit(lambda _: None)  # checks what may have changed since it was put aside
            return items
        return ComponentList(items, self._manager, previous=self)

    def __repr__(self) -> str:
        return f"[{', '.join(self.names())}]"

    def __str__(self) -> str:
        return explain_list([self._members[id(c)] for c in self], self._manager)

    def names(self) -> list[str]:
        """Return the names of the components, in order."""
        return [self._members[id(component)].name for component in self]

    def members(self) -> list[Member]:
        """Return what the list knows of each component, in order, for the manager.

        Raises:
            DuplicateComponentError: one component stands twice.
            RequirementError: a component is there and on, but one that it requires is not.
            ComponentRejectedError: nobody brings a callback point that somebody implements.
        """
        members = {id(component): self._members[id(component)] for component in self}
        for i, component in enumerate(self):
            if any(self[j] is component for j in range(i)):
                raise DuplicateComponentError(
                    f"{members[id(component)]} stands twice in the list, the second time at {i}, "
                    "and would be called twice. Take one out, or put in a second object"
                )
        self._check(list(members.values()))
        # who left is forgotten only now: swapping two takes one of them out for a moment
        self._members = members
        return list(members.values())

    def manifest(self) -> list[dict[str, Any]]:
        """Return what is in the list as data. See `TrainTestLoop.manifest`."""
        return [
            {"position": i, **self._members[id(component)].record()}
            for i, component in enumerate(self)
        ]

    def explain(self, point: str | None = None) -> str:
        """Return who is called at a point and why. See `TrainTestLoop.explain`."""
        return explain_points(point, [self._members[id(c)] for c in self], self._manager)

    # -- entering ---------------------------------------------------------------------------

    def _edit(self, change: Callable[[list[LoopComponent]], _Result]) -> _Result:
        """Change a copy first, so that a refused change leaves the list as it was."""
        after = list(self)
        result = change(after)
        members = {id(component): self._members[id(component)] for component in after}
        names = self._names_for(members)
        for key, member in members.items():
            member.is_barred = bool({names[key], member.key} & _barred_names())
        if len(members) == len(after):  # else half of a swap; the rest is checked when it is done
            self._check(list(members.values()))
        for key, member in members.items():
            member.name, member.was_in_list = names[key], True
        self._warn_of_order(list(members.values()))
        super().__setitem__(slice(None), after)
        self._manager.list_changed()
        return result

    def _names_for(self, members: dict[int, Member]) -> dict[int, str]:
        """Return the name of each member: who stays keeps it, who was there before may."""
        present = {id(component) for component in self}

        def seniority(key: int) -> int:
            return 0 if key in present else 1 if members[key].was_in_list else 2

        names: dict[int, str] = {}
        for key in sorted(members, key=seniority):
            name = members[key].name
            taken = names.values()
            names[key] = name if name not in taken else free_name(members[key].own_name, taken)
        return names

    def _check(self, members: list[Member]) -> None:
        for member in members:
            if member.is_on:
                self._check_requirements(member, members)
        self._manager.check(members)

    def _check_requirements(self, member: Member, members: list[Member]) -> None:
        for key in member.hints.requires:
            found = [other for other in members if other.key == key]
            if any(other.is_on for other in found):
                continue
            if not found:
                raise RequirementError(
                    f"{member} requires {key!r}, which is not in the list. Put {key!r} in, or take "
                    f"{member.name!r} out first"
                )
            mend = f"Enable {found[0].name!r}"
            if found[0].is_barred:
                mend = f"Take it out of TTL_DISABLE={os.environ.get('TTL_DISABLE', '')}"
            raise RequirementError(
                f"{member} requires {key!r}, which is disabled. {mend}, or disable "
                f"{member.name!r} first"
            )

    def _warn_of_order(self, members: list[Member]) -> None:
        for edge in _edges(members):
            first, then = members[edge.first], members[edge.then]
            pair = (first.name, then.name)
            if edge.then < edge.first and pair not in self._warned_pairs:
                self._warned_pairs.add(pair)
                author, other = (then, first) if edge.hint == "after" else (first, then)
                warnings.warn(
                    f"{then.name!r} stands before {first.name!r}, but {author} declares "
                    f"{edge.hint}={other.key!r}. If that was not meant, write "
                    f"loop.components.move({first.name!r}, before={then.name!r}), or "
                    "arrange([...]) around the list",
                    OrderWarning,
                    stacklevel=user_stacklevel(),
                )

    def _component(self, item: Item) -> LoopComponent:
        """Return the component that an item is or names, checked and ready to enter."""
        if isinstance(item, str):
            item = use(item)
        if not isinstance(item, Spec):
            return self._welcome(item, None, None)
        made, offer = discovery.make(item)
        if not isinstance(made, LoopComponent):
            raise PluginError(
                f"component {offer}: its entry point {offer.entry_point.value!r} made {made!r}, "
                f"which is no LoopComponent. Report it to the author of {offer.distribution}"
            )
        return self._welcome(made, item, offer)

    def _welcome(
        self, component: LoopComponent, spec: Spec | None, offer: Offer | None
    ) -> LoopComponent:
        if id(component) in self._members:
            return component
        _check_kind(component)
        asked = spec.name if spec else None
        own_name = asked or _own_name(component, offer.name if offer else None)
        member = Member(
            component,
            key=offer.name if offer else own_name,
            own_name=own_name,
            find_distribution=lambda: (
                (offer.distribution, offer.version)
                if offer
                else discovery.distribution_of(type(component))
            ),
            config=spec.config if spec else {},
        )
        member.hints = read_hints(discovery.load(offer) if offer else type(component), member)
        member.methods = hook_methods(component, member)
        member.points = provided_points(component, member.key, member)
        vars(member.plugin).update({n: method for n, (method, _) in member.methods.items()})
        self._members[id(component)] = member
        return component

    # -- the operations of a list, by index or by name --------------------------------------

    def index(self, item: Item, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize) -> int:
        """Return where a component stands.

        Args:
            item: the component, or its name.
            start: where to begin to look.
            stop: where to end.

        Raises:
            UnknownNameError: it is not there. As for every list, this is a ValueError.
        """
        for i in range(*slice(start, stop).indices(len(self))):
            if self._is(self[i], item):
                return i
        names = self.names()
        hint = did_you_mean(item, names) if isinstance(item, str) else ""
        raise UnknownNameError(
            f"no component {item!r} is in the list. {hint}It holds: {', '.join(names) or 'none'}"
        )

    def _is(self, component: LoopComponent, item: object) -> bool:
        if isinstance(item, str):
            return self._members[id(component)].name == item
        return component is item

    def _at(self, key: Any) -> Any:
        return self.index(key) if isinstance(key, str) else key

    def __contains__(self, item: object) -> bool:
        return any(self._is(component, item) for component in self)

    def count(self, item: Item) -> int:
        """Return how often a component stands in the list, given itself or its name."""
        return sum(self._is(component, item) for component in self)

    @overload
    def __getitem__(self, key: SupportsIndex) -> LoopComponent: ...
    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> list[LoopComponent]: ...
    def __getitem__(self, key: SupportsIndex | str | slice) -> Any:
        return super().__getitem__(self._at(key))

    @overload
    def __setitem__(self, key: SupportsIndex | str, value: Item) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: Iterable[Item]) -> None: ...
    def __setitem__(self, key: SupportsIndex | str | slice, value: Any) -> None:
        if isinstance(key, str) and self.count(key) > 1:
            raise DuplicateComponentError(
                f"{key!r} stands twice in the list, so its name does not say which one to replace. "
                "To swap two, use indices, or move()"
            )
        at = self._at(key)
        new = self._components(value) if isinstance(key, slice) else self._component(value)
        self._edit(lambda after: after.__setitem__(at, new))

    def __delitem__(self, key: SupportsIndex | str | slice) -> None:
        self._edit(lambda after: after.__delitem__(self._at(key)))

    def __iadd__(self, items: Iterable[Item]) -> ComponentList:  # type: ignore[override,misc]
        self.extend(items)
        return self

    def __imul__(self, times: SupportsIndex) -> ComponentList:
        self._edit(lambda after: after.__imul__(times))
        return self

    def append(self, item: Item) -> None:
        """Put a component at the end."""
        self.extend([item])

    def extend(self, items: Iterable[Item]) -> None:
        """Put components at the end."""
        new = self._components(items)
        self._edit(lambda after: after.extend(new))

    def insert(self, index: SupportsIndex | str, item: Item) -> None:
        """Put a component before the one at an index, or of a name."""
        at, new = self._at(index), self._component(item)
        self._edit(lambda after: after.insert(at, new))

    def remove(self, item: Item) -> None:
        """Take out a component, given itself or its name."""
        del self[self.index(item)]

    def pop(self, key: SupportsIndex | str = -1) -> LoopComponent:
        """Take out the component at an index, or of a name, and return it."""
        return self._edit(lambda after: after.pop(self._at(key)))

    def clear(self) -> None:
        """Take out all components."""
        del self[:]

    def sort(self, *, key: Callable[[LoopComponent], Any], reverse: bool = False) -> None:  # type: ignore[override]
        """Sort the components by a key."""
        self._edit(lambda after: after.sort(key=key, reverse=reverse))

    def reverse(self) -> None:
        """Turn the order round."""
        self._edit(lambda after: after.reverse())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy belongs to no loop

    def _components(self, items: Iterable[Item]) -> list[LoopComponent]:
        if isinstance(items, str | Spec | LoopComponent) or not isinstance(items, Iterable):
            raise ComponentRejectedError(
                f"{items!r} is no list of components. Write [{items!r}] to give one"
            )
        return [self._component(item) for item in items]

    # -- order ------------------------------------------------------------------------------

    def add(self, item: Item) -> None:
        """Put a component where its author's hints, and those of the others, want it.

        That is before the first one that has to come after it, else at the end.
        """
        component = self._component(item)
        members = [self._members[id(c)] for c in [*self, component]]
        at = place_for(len(self), _edges(members))
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
            before: whom it shall stand before.
            after: whom it shall stand after, instead.

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

    # -- on and off -------------------------------------------------------------------------

    def enable(self, *items: LoopComponent | str) -> None:
        """Switch components on, given themselves or their names.

        Raises:
            UnknownNameError: one is not in the list.
            RunError: the environment variable TTL_DISABLE takes it away.
            RequirementError: it requires one that is off.
        """
        members = self._found(items)
        for member in members:
            if member.is_barred:
                raise RunError(
                    f"{member} cannot be enabled: the environment variable TTL_DISABLE="
                    f"{os.environ.get('TTL_DISABLE', '')} takes it away"
                )
        self._switch(members, on=True)

    def disable(self, *items: LoopComponent | str) -> None:
        """Switch components off. They keep their place and their state.

        Raises:
            UnknownNameError: one is not in the list.
            RequirementError: one that is on requires it.
        """
        self._switch(self._found(items), on=False)

    def is_enabled(self, item: LoopComponent | str) -> bool:
        """Tell whether a component is on, given itself or its name."""
        return self._found([item])[0].is_on

    @contextmanager
    def disabled(self, *items: LoopComponent | str) -> Iterator[None]:
        """Switch components off for the length of a with block."""
        were_on = [member for member in self._found(items) if member.is_enabled]
        self._switch(were_on, on=False)
        try:
            yield
        except BaseException:  # then without a check, whose error would hide this one
            for member in were_on:
                member.is_enabled = True
            self._manager.list_changed()
            raise
        self._switch(were_on, on=True)

    def _found(self, items: Iterable[LoopComponent | str]) -> list[Member]:
        return [self._members[id(self[self.index(item)])] for item in items]

    def _switch(self, members: list[Member], on: bool) -> None:
        before = [(member, member.is_enabled) for member in members]
        for member in members:
            member.is_enabled = on
        try:
            self._check([self._members[id(component)] for component in self])
        except RequirementError:
            for member, was_on in before:
                member.is_enabled = was_on
            raise
        self._manager.list_changed()


def arrange(items: Iterable[Item]) -> list[Item]:
    """Return the same items in an order that respects the hints of their authors.

    It is stable: who has no reason to move stays where it is among the others. Names of installed
    components are looked up and imported, to read their hints; nothing is made.

    Args:
        items: components, names of installed ones, or specs.

    Returns:
        A new list of the same items.

    Raises:
        OrderCycleError: the hints contradict one another.
        UnknownNameError: a name is not installed.

    Example:
        >>> class Bar(LoopComponent):
        ...     after = "sums"
        >>> class Sums(LoopComponent): ...
        >>> [type(component).__name__ for component in arrange([Bar(), Sums()])]
        ['Sums', 'Bar']
    """
    items = list(items)
    keys: list[str] = []
    hints: list[Hints] = []
    for item in items:
        if isinstance(item, str | Spec):
            offer = discovery.find(item if isinstance(item, str) else item.plugin)
            keys.append(offer.name)
            hints.append(read_hints(discovery.load(offer), f"component {offer}"))
        else:
            _check_kind(item)
            keys.append(_own_name(item))
            hints.append(read_hints(type(item), f"component {keys[-1]!r}"))
    constraints = edges(keys, hints)
    try:
        return [items[place] for place in arranged(len(items), constraints)]
    except graphlib.CycleError as error:
        cycle = error.args[1]
        steps = [_step(keys, constraints, *pair) for pair in itertools.pairwise(cycle)]
        raise OrderCycleError(
            "the hints contradict one another:\n" + "\n".join(steps) + "\nWrite the order that "
            "you want as a list, without arrange()"
        ) from None


def _check_kind(item: object) -> None:
    """Check that an item is a component.

    Raises:
        ComponentRejectedError: it is not.
    """
    if isinstance(item, type) and issubclass(item, LoopComponent):
        raise ComponentRejectedError(
            f"{item.__qualname__} is a class, not a component. Write {item.__name__}(...), which "
            "makes one"
        )
    if not isinstance(item, LoopComponent):
        raise ComponentRejectedError(
            f"{item!r} is a {type(item).__name__}, no component. A list takes instances of "
            "LoopComponent, names of installed components, and use(...)"
        )


def _own_name(component: LoopComponent, default: str | None = None) -> str:
    """Return the name that a component asks for, or else this one, or its class's."""
    if isinstance(component.name, str):
        return kebab_case(component.name)
    return default or kebab_case(type(component).__name__)


def _step(keys: Sequence[str], constraints: Sequence[Edge], first: int, then: int) -> str:
    edge = next(e for e in constraints if (e.first, e.then) == (first, then))
    other = keys[first if edge.hint == "after" else then]
    return (
        f"  {keys[first]!r} before {keys[then]!r}, as {keys[edge.declared_by]!r} declares "
        f"{edge.hint}={other!r}"
    )


def _edges(members: Sequence[Member]) -> list[Edge]:
    return edges([member.key for member in members], [member.hints for member in members])


# -- the environment may take away ----------------------------------------------------------

_named_in_vain: set[str] = set()


def _barred_names() -> set[str]:
    return {name.strip() for name in os.environ.get("TTL_DISABLE", "").split(",")} - {""}


def _warn_of_unknown_names(components: ComponentList) -> None:
    present = {*components.names(), *(member.key for member in components._members.values())}
    for name in sorted(_barred_names() - present - _named_in_vain):
        if name not in discovery.offers():
            _named_in_vain.add(name)
            warnings.warn(
                f"TTL_DISABLE names {name!r}, which is neither installed nor in the loop. "
                f"{did_you_mean(name, [*present, *discovery.offers()])}",
                UserWarning,
                stacklevel=user_stacklevel(),
            )
