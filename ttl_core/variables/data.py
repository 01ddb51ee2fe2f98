"""Data to iterate over: their checks, their sets, their length."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ttl_core.errors import ArgumentError, RunError


def check_data(name: str, data: Any, *, may_be_named: bool = False) -> Any:
    """Return data that are None or can be iterated over.

    Args:
        name: the name of the argument, for the error.
        data: the data.
        may_be_named: whether a mapping of names to data is accepted too.

    Raises:
        ArgumentError: they cannot be iterated over.
    """
    if may_be_named and isinstance(data, Mapping):
        if not data:
            raise ArgumentError(f"{name} is an empty mapping. Give None for no validation")
        for key, one in data.items():
            if not isinstance(key, str) or not key or "/" in key:
                raise ArgumentError(
                    f"{name} has a set named {key!r}, but names are text without '/', as they "
                    "become part of names of metrics"
                )
            require_data(f"{name}[{key!r}]", one)
    elif data is not None and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise ArgumentError(f"{name} is {data!r}, which cannot be iterated over")
    return data


def require_data(name: str, data: Any, *, may_be_named: bool = False) -> Any:
    """Return data that can be iterated over.

    Args:
        name: the name of the argument, for the error.
        data: the data.
        may_be_named: whether a mapping of names to data is accepted too.

    Raises:
        ArgumentError: they are None, or cannot be iterated over.
    """
    if data is None:
        raise ArgumentError(f"{name} is None, so there is nothing to iterate over")
    return check_data(name, data, may_be_named=may_be_named)


def check_not_in_use(data: Any, in_use: Collection[Any]) -> None:
    """Check that data to validate on are no iterator that a training epoch is using.

    Args:
        data: the data, or a mapping of several by name.
        in_use: the data of the training epoch.

    Raises:
        RunError: they are, so that training would miss the batches.
    """
    for _, one in named_sets(data):
        if hasattr(one, "__next__") and any(one is other for other in in_use):
            raise RunError(
                f"validate() was given a {type(one).__name__} that the training epoch is using: it "
                "would take batches away from training. Give data of its own, such as a list or a "
                "second DataLoader"
            )


def named_sets(data: Any) -> list[tuple[str | None, Any]]:
    """Return validation data as sets with their names; a single set has none.

    Example:
        >>> named_sets([1, 2]), named_sets({"easy": [1], "hard": [2]})
        ([(None, [1, 2])], [('easy', [1]), ('hard', [2])])
    """
    return list(data.items()) if isinstance(data, Mapping) else [(None, data)]


def length_of(data: Any) -> int | None:
    """Return the number of batches in data, or None if they have no length."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):  # a DataLoader over a stream has __len__ and no length
        return None


def describe_data(data: Any) -> str:
    """Return the type of data and their number of batches, as text."""
    if data is None:
        return "None"
    if isinstance(data, Mapping):
        return f"{{{', '.join(f'{name}: {describe_data(one)}' for name, one in data.items())}}}"
    length = length_of(data)
    what = "batches of unknown number" if length is None else f"{length} batches"
    return f"<{what} in a {type(data).__name__}>"
