"""The protocols of objects that have state, and of data that wrap other data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from ttl_core.components.stateful import PAIR
from ttl_core.errors import StateError, TTLError

State = dict[str, Any]
"""What `state_dict()` returns."""


@runtime_checkable
class Stateful(Protocol):
    """An object with state, as modules, optimizers, and components that implement this pair.

    No base class is needed: the methods are what counts.

    Example:
        >>> import torch
        >>> from ttl_core import Stateful
        >>> isinstance(torch.nn.Linear(2, 1), Stateful), isinstance(torch.ones(2), Stateful)
        (True, False)
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the state, without an effect on it."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore a state.

        Args:
            state: what `state_dict` returned.
        """
        ...


def has_state(value: object) -> bool:
    """Return whether a value has the methods `state_dict()` and `load_state_dict()`."""
    return all(callable(getattr(value, method, None)) for method in PAIR)


@contextlib.contextmanager
def reading(part: str) -> Iterator[None]:
    """Say of an error in a with block that a part of a state caused it.

    Args:
        part: the part of the state that is used.

    Raises:
        StateError: instead of an error that is not ttl's own.
    """
    try:
        yield
    except (TTLError, Warning):
        raise
    except Exception as error:
        raise StateError(
            f"the {part} of the state cannot be restored: {type(error).__name__}: {error}. It is "
            "not as state_dict() returned it"
        ) from error


@runtime_checkable
class DataWrapper(Protocol):
    """Data that are made of other data, one batch of one batch, in the same order.

    A run can resume inside an epoch of them if it can inside one of what they wrap. No base class
    is needed: the attribute and the method are what counts.

    A wrapper that reads ahead has a method `consumed_state()` too, without arguments. It returns
    what `state_dict()` of the innermost data was behind the last batch that was consumed, where
    they have one.

    Attributes:
        wrapped_data: the data that are wrapped.
    """

    wrapped_data: Any

    def iterate_rest(self, batches: Iterable[Any], n_batches: int) -> Iterator[Any]:
        """Return an iterator over the rest of an epoch.

        Args:
            batches: what is left of the wrapped data.
            n_batches: how many batches of this epoch were consumed.
        """
        ...


def unwrapped(data: Any) -> Any:
    """Return the data that wrappers of data are made of in the end, or the first with a state.

    Args:
        data: data, or a `DataWrapper`.

    Example:
        >>> from ttl_core import unwrapped
        >>> unwrapped([1, 2])
        [1, 2]
    """
    # first what most data do not have, as looking for a protocol takes long
    while hasattr(data, "wrapped_data") and isinstance(data, DataWrapper) and not has_state(data):
        data = data.wrapped_data
    return data


def consumed_state(data: Any) -> dict[str, Any]:
    """Return the state of the innermost data, behind what was consumed of the outer ones.

    Args:
        data: data with a state, or wrappers of such data.
    """
    while not has_state(data):
        if hasattr(data, "consumed_state"):
            return data.consumed_state()  # type: ignore[no-any-return]
        data = data.wrapped_data
    return data.state_dict()  # type: ignore[no-any-return]
