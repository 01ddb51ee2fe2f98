"""Values that belong to objects by their identity."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class ByIdentity(Generic[_Value]):
    """Values of objects that may be equal to one another or unhashable, as long as they live."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[object], _Value]] = {}

    def __setitem__(self, owner: object, value: _Value) -> None:
        key = id(owner)
        reference = weakref.ref(owner, lambda _: self._entries.pop(key, None))
        self._entries[key] = reference, value

    def get(self, owner: object) -> _Value | None:
        """Return the value of an object, or None if it has none."""
        entry = self._entries.get(id(owner))
        return entry[1] if entry is not None and entry[0]() is owner else None
