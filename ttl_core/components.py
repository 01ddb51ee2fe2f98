"""The base class of components, and the list that holds them: order, names, on and off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, SupportsIndex, TypeAlias, TypeVar, overload

from ttl_core import discovery
from ttl_core.discovery import Offer, Spec, use
from ttl_core.errors import (
    ComponentRejectedError,
    DuplicateComponentError,
    PluginError,
    UnknownNameError,
)
from ttl_core.hookspecs import CallbackPoints
from ttl_core.manager import HookManager, Member
from ttl_core.ordering import did_you_mean, free_name, kebab_case

_Result = TypeVar("_Result")


class LoopComponent(CallbackPoints):
    """Be the base class of everything that a loop calls.

    Override the callback points that you need; the others cost nothing. A method with the name of
    a point needs no decorator; `@hookimpl(...)` is there for options.

    Attributes:
        name: the name in a list; None means the entry point's name, or the class's.

    Example:
        >>> class CountBatches(LoopComponent):
        ...     def on_epoch_begin(self, loop):
        ...         self.count = 0
        ...
        ...     def on_batch_end(self, loop):
        ...         self.count += 1
    """

    name: str | None = None


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
        self.extend(items)

    def replaced_by(self, items: Iterable[Item]) -> ComponentList:
        """Return the list that a loop shall have after this one: a new one, or one of its old."""
        if isinstance(items, ComponentList) and items._manager is self._manager:
            self._manager.list_changed()
            return items
        return ComponentList(items, self._manager, previous=self)

    def __repr__(self) -> str:
        return f"[{', '.join(self.names())}]"

    def names(self) -> list[str]:
        """Return the names of the components, in order."""
        return [self._members[id(component)].name for component in self]

    def members(self) -> list[Member]:
        """Return what the list knows of each component, in order, for the manager.

        Raises:
            DuplicateComponentError: one component stands twice.
        """
        # who left is forgotten only now: swapping two takes one of them out for a moment
        members: dict[int, Member] = {}
        for i, component in enumerate(self):
            member = self._members[id(component)]
            if id(component) in members:
                raise DuplicateComponentError(
                    f"{member} stands twice in the list, the second time at {i}, and would be "
                    "called twice. Take one out, or put in a second object"
                )
            members[id(component)] = member
        self._members = members
        return list(members.values())

    def manifest(self) -> list[dict[str, Any]]:
        """Return what is in the list as data. See `TrainTestLoop.manifest`."""
        return [
            {"position": i, **self._members[id(component)].record()}
            for i, component in enumerate(self)
        ]

    # -- entering ---------------------------------------------------------------------------

    def _edit(self, change: Callable[[list[LoopComponent]], _Result]) -> _Result:
        """Change a copy first, so that a refused change leaves the list as it was."""
        after = list(self)
        result = change(after)
        staying = {id(c) for c in self} & {id(c) for c in after}
        taken = {self._members[key].name for key in staying}
        entering = {id(c): self._members[id(c)] for c in after if id(c) not in staying}
        for member in sorted(entering.values(), key=lambda member: not member.was_in_list):
            if member.name in taken:
                member.name = free_name(member.own_name, taken)
            taken.add(member.name)
            member.was_in_list = True
        super().__setitem__(slice(None), after)
        self._manager.list_changed()
        return result

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
        if isinstance(component, type) and issubclass(component, LoopComponent):
            raise ComponentRejectedError(
                f"{component.__qualname__} is a class, not a component. Write "
                f"{component.__name__}(...), which makes one"
            )
        if not isinstance(component, LoopComponent):
            raise ComponentRejectedError(
                f"{component!r} is a {type(component).__name__}, no component. A list takes "
                "instances of LoopComponent, names of installed components, and use(...)"
            )
        name = component.name
        member = Member(
            component,
            own_name=(spec.name if spec else None)
            or (kebab_case(name) if isinstance(name, str) else None)
            or (offer.name if offer else kebab_case(type(component).__name__)),
            find_distribution=lambda: (
                (offer.distribution, offer.version)
                if offer
                else discovery.distribution_of(type(component))
            ),
            config=spec.config if spec else {},
        )
        member.take_methods(self._manager.hook_methods(component, member))
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

    # -- on and off -------------------------------------------------------------------------

    def enable(self, *items: LoopComponent | str) -> None:
        """Switch components on, given themselves or their names."""
        self._switch(self._found(items), on=True)

    def disable(self, *items: LoopComponent | str) -> None:
        """Switch components off. They keep their place and their state."""
        self._switch(self._found(items), on=False)

    def is_enabled(self, item: LoopComponent | str) -> bool:
        """Tell whether a component is on, given itself or its name."""
        return self._found([item])[0].enabled

    @contextmanager
    def disabled(self, *items: LoopComponent | str) -> Iterator[None]:
        """Switch components off for the length of a with block."""
        were_on = [member for member in self._found(items) if member.enabled]
        self._switch(were_on, on=False)
        try:
            yield
        finally:
            self._switch(were_on, on=True)

    def _found(self, items: Iterable[LoopComponent | str]) -> list[Member]:
        return [self._members[id(self[self.index(item)])] for item in items]

    def _switch(self, members: list[Member], on: bool) -> None:
        for member in members:
            member.enabled = on
        self._manager.list_changed()
