"""A list of components whose operations take names, and that is changed in one place."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Self, SupportsIndex, TypeVar, overload

from ttl_core.arguments import did_you_mean
from ttl_core.components.component import Item, LoopComponent
from ttl_core.errors import DuplicateComponentError, UnknownNameError

_Component = TypeVar("_Component", bound=LoopComponent)
_Result = TypeVar("_Result")


class NamedList(list[LoopComponent]):
    """A list of components in which a name works like an index or a component.

    Components are compared by identity. Every operation that changes the list goes through
    `_edit`, and every new item through `_enter` or `_enter_all`.
    """

    @abstractmethod
    def _name_of(self, component: LoopComponent) -> str:
        """Return the name of a component in the list."""

    @abstractmethod
    def _enter(self, item: Item) -> LoopComponent:
        """Return the component that an item is or names, checked and known to the list."""

    @abstractmethod
    def _enter_all(self, items: Iterable[Item]) -> list[LoopComponent]:
        """Return the components that items are or name."""

    @abstractmethod
    def _edit(self, change: Callable[[list[LoopComponent]], _Result]) -> _Result:
        """Apply a change to the list, or refuse it as a whole; return what `change` returns."""

    @abstractmethod
    def _current_name(self, name: str) -> str:
        """Return the name in the list of a component with a former name, or else the name."""

    def names(self) -> list[str]:
        """Return the names of the components, in order."""
        return [self._name_of(component) for component in self]

    def name_of(self, component: LoopComponent) -> str:
        """Return the name that a component has in the list.

        Args:
            component: the component.

        Raises:
            UnknownNameError: it is not in the list.
        """
        return self._name_of(self[self.index(component)])

    def index(self, item: Item, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize) -> int:
        """Return the index of a component.

        Args:
            item: the component, or its name.
            start: where to begin the search.
            stop: where to end it.

        Raises:
            UnknownNameError: it is not in the list. As for every list, this is a ValueError.
        """
        item = self._current(item)
        first, end, _ = slice(start, stop).indices(len(self))
        for i, component in enumerate(self):
            if first <= i < end and self._is(component, item):
                return i
        names = self.names()
        hint = did_you_mean(item, names) if isinstance(item, str) else ""
        raise UnknownNameError(
            f"no component {item!r} is in the list. {hint}It holds: {', '.join(names) or 'none'}"
        )

    def _current(self, item: Any) -> Any:
        return self._current_name(item) if isinstance(item, str) else item

    def _is(self, component: LoopComponent, item: object) -> bool:
        if isinstance(item, str):
            return self._name_of(component) == item
        return component is item

    def _at(self, key: Any) -> Any:
        return self.index(key) if isinstance(key, str) else key

    def __contains__(self, item: object) -> bool:
        item = self._current(item)
        return any(self._is(component, item) for component in self)

    def count(self, item: Item) -> int:
        """Return how often a component, given itself or its name, is in the list."""
        item = self._current(item)
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
    def get(self, item: type[_Component]) -> _Component | None: ...
    @overload
    def get(self, item: str) -> Any: ...
    def get(self, item: type[LoopComponent] | str) -> Any:
        """Return the first component of a class, or the one of a name; None if there is none.

        Type checkers know what a class returns; of `components["name"]` they know nothing.

        Args:
            item: the class, of which it may be a subclass, or the name.

        Example:
            >>> import torch
            >>> from ttl_core import LoopComponent, TrainTestLoop
            >>> class Ema(LoopComponent):
            ...     decay = 0.9
            >>> loop = TrainTestLoop(torch.nn.Identity(), [Ema()])
            >>> ema = loop.components.get(Ema)
            >>> ema.decay if ema else None
            0.9
        """
        item = self._current(item)
        if isinstance(item, str):
            return next((component for component in self if self._is(component, item)), None)
        return next((component for component in self if isinstance(component, item)), None)

    @overload
    def __setitem__(self, key: SupportsIndex | str, value: Item) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: Iterable[Item]) -> None: ...
    def __setitem__(self, key: SupportsIndex | str | slice, value: Any) -> None:
        if isinstance(key, str) and self.count(key) > 1:
            raise DuplicateComponentError(
                f"{key!r} is in the list twice, so its name does not say which one to replace. "
                "To swap two, use indices, or move()"
            )
        at = self._at(key)
        new = self._enter_all(value) if isinstance(key, slice) else self._enter(value)
        self._edit(lambda after: after.__setitem__(at, new))

    def __delitem__(self, key: SupportsIndex | str | slice) -> None:
        self._edit(lambda after: after.__delitem__(self._at(key)))

    def __iadd__(self, items: Iterable[Item]) -> Self:  # type: ignore[override,misc]
        self.extend(items)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        self._edit(lambda after: after.__imul__(times))
        return self

    def append(self, item: Item) -> None:
        """Add a component at the end."""
        self.extend([item])

    def extend(self, items: Iterable[Item]) -> None:
        """Add components at the end."""
        new = self._enter_all(items)
        self._edit(lambda after: after.extend(new))

    def insert(self, index: SupportsIndex | str, item: Item) -> None:
        """Insert a component before the one at an index, or of a name."""
        at, new = self._at(index), self._enter(item)
        self._edit(lambda after: after.insert(at, new))

    def remove(self, item: Item) -> None:
        """Remove a component, given itself or its name."""
        del self[self.index(item)]

    def pop(self, key: SupportsIndex | str = -1) -> LoopComponent:
        """Remove the component at an index, or of a name, and return it."""
        return self._edit(lambda after: after.pop(self._at(key)))

    def clear(self) -> None:
        """Remove all components."""
        del self[:]

    def sort(self, *, key: Callable[[LoopComponent], Any], reverse: bool = False) -> None:  # type: ignore[override]
        """Sort the components by a key."""
        self._edit(lambda after: after.sort(key=key, reverse=reverse))

    def reverse(self) -> None:
        """Reverse the order."""
        self._edit(lambda after: after.reverse())

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy belongs to no loop
