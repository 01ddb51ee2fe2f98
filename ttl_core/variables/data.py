"""Data to iterate over: their checks, their sets, their length."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Generator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset, IterableDataset

from ttl_core.arguments import describe, user_stacklevel
from ttl_core.errors import ArgumentError, RunError
from ttl_core.state.protocol import unwrapped

if TYPE_CHECKING:
    from ttl_core.variables.loop_variables import LoopVariables


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
    elif isinstance(data, Mapping):
        raise ArgumentError(
            f"{name} is a mapping, {describe(data)}, of which only the keys would be iterated "
            "over. Only validation takes several sets by name; give one of them: its values are "
            "batches"
        )
    elif _is_one_batch(data):
        raise ArgumentError(
            f"{name} is a tuple of tensors, which looks like inputs and targets, but has to be an "
            f"iterable of batches. Write [{name}] if it is one batch, or "
            "DataLoader(TensorDataset(*data), batch_size=...) if it holds samples"
        )
    elif isinstance(data, torch.Tensor):
        _warn_of_samples(name, f"a tensor of shape {(*data.shape,)}", "each row")
    elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        _warn_of_samples(name, f"a {type(data).__name__}, a data set", "each sample")
    elif data is not None and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise ArgumentError(f"{name} is {describe(data)}, which cannot be iterated over")
    return data


def _warn_of_samples(name: str, what: str, part: str) -> None:
    warnings.warn(
        f"{name} is {what}, of which {part} is taken for a batch. Write DataLoader(..., "
        "batch_size=...) if they are samples, or list(...) if they are batches",
        UserWarning,
        stacklevel=user_stacklevel(),
    )


def _is_one_batch(data: Any) -> bool:
    """Return whether data look like inputs and targets: two tensors of one length, unlike ones."""
    if type(data) is not tuple or len(data) != 2 or not all(map(torch.is_tensor, data)):
        return False
    one, other = data
    return bool(one.dim() != other.dim() and one.shape[:1] == other.shape[:1])


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
    """Check that data to validate on can be iterated over while a training epoch uses others.

    Args:
        data: the data, or a mapping of several by name.
        in_use: the data of the training epoch.

    Raises:
        RunError: they are the same object, of which a second iterator disturbs the first.
    """
    used = [unwrapped(other) for other in in_use]
    for _, one in named_sets(data):
        one = unwrapped(one)
        if _has_one_iterator(one) and any(one is other for other in used):
            raise RunError(
                f"validate() was given the {type(one).__name__} that the training epoch is using, "
                "which can be iterated over only once at a time: training would miss batches. Give "
                "data of its own, such as a list or a second DataLoader"
            )


def _has_one_iterator(data: Any) -> bool:
    is_persistent = getattr(data, "persistent_workers", False) and getattr(data, "num_workers", 0)
    # data with state, as torchdata's loaders, keep it in the iterator that was created last
    return bool(is_persistent) or hasattr(data, "__next__") or hasattr(data, "load_state_dict")


def check_lasts(n_epochs: int | None, **several: Any) -> None:
    """Check that no data are an iterator that is used up before the last epoch.

    Args:
        n_epochs: the number of epochs; None if it is not known.
        **several: data by the name of their argument; each may be a mapping of several sets.

    Raises:
        ArgumentError: some are.
    """
    for name, data in several.items():
        for set_name, one in named_sets(data):
            one = unwrapped(one)
            if isinstance(one, _USED_UP) and n_epochs is not None and n_epochs > 1:
                where = name if set_name is None else f"{name}[{set_name!r}]"
                raise ArgumentError(
                    f"{where} is a {type(one).__name__}, which is used up after one epoch, but "
                    f"there are {n_epochs}. Give a list, a DataLoader, or an object whose __iter__ "
                    "starts again"
                )


_USED_UP: tuple[type, ...] = (
    Generator,
    enumerate,
    filter,
    map,
    zip,
    type(iter([])),
    type(iter(())),
)
"""Iterators that cannot be started again."""


def check_not_empty(loop: LoopVariables, batch_num: int | None) -> None:
    """Check that an epoch had a batch, if it is one of training or over an iterator.

    Args:
        loop: the loop, at the end of the epoch.
        batch_num: the number of the last batch; None if there was none.

    Raises:
        RunError: it had none.
    """
    if batch_num is not None:
        return
    data = unwrapped(loop.data)
    is_iterator = hasattr(data, "__next__")
    if loop.is_training or is_iterator:
        used_up = ", which is used up" if is_iterator else ""
        raise RunError(
            f"{loop.epoch_desc} epoch {loop.epoch_num} had no batch in its data, a "
            f"{type(data).__name__}{used_up}. Give data with a batch for every epoch; a "
            "DataLoader with drop_last=True drops the only batch of fewer samples than its "
            "batch_size"
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
