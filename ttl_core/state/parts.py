"""Distributed tensors in a state: the parts that each process writes, and reading them again.

In place of such a tensor a state has a description, from which it can be put together.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ttl_core.errors import StateError
from ttl_core.group import Group
from ttl_core.shards import (
    Slice,
    StoredTensor,
    is_sharded,
    is_stored,
    local_part,
    own_slice,
    whole_tensor,
)
from ttl_core.state.protocol import State

DESCRIPTION = "distributed tensor"
"""The key of what a state has in place of such a tensor."""
_ALIGNMENT = 64  # bytes, at multiples of which parts begin: a view of a file needs that


def map_tensors(
    value: Any, function: Callable[[torch.Tensor], Any], is_meant: Callable[[object], bool]
) -> Any:
    """Return a nested value with a function applied to each tensor that is meant.

    What holds no such tensor is the same object as in the value. Unlike `map_nested`, which is for
    batches of any kind, it enters the types of containers that states have and no others, and what
    is meant may be a mapping: the description of a tensor.

    Args:
        value: the value, which is not changed.
        function: the function.
        is_meant: returns whether a value is such a tensor.
    """
    if is_meant(value):
        return function(value)
    if type(value) in (dict, OrderedDict):
        mapped = {key: map_tensors(item, function, is_meant) for key, item in value.items()}
        if all(mapped[key] is item for key, item in value.items()):
            return value
        result = copy.copy(value)  # with the versions of modules, in the state of a model
        result.update(mapped)
        return result
    if type(value) in (list, tuple):
        items = [map_tensors(item, function, is_meant) for item in value]
        is_same = all(map(operator.is_, items, value))
        return value if is_same else type(value)(items)
    return value


# -- saving ---------------------------------------------------------------------------------


def in_parts(state: State, group: Group) -> State:
    """Return a state with descriptions in place of distributed tensors, and with own parts.

    All processes have to call this. Where there are no such tensors, it is the state as it is.

    Args:
        state: the state of this process.
        group: the processes.

    Returns:
        The state, with an entry "parts": the tensors that this process has to save, by the byte at
        which each begins in its file. A description has the shape, the type, and of each part the
        rank of the process, that byte, and the slice of the tensor.
    """
    own, layout = _own_parts(state)
    if not layout:
        return state
    by_tensor = zip(*group.gather(layout), strict=True)

    def described(tensor: torch.Tensor) -> Any:
        several = next(by_tensor)  # the parts of all processes
        if None in several:
            return whole_tensor(tensor.detach()).to("cpu")
        parts = [[rank, *part] for rank, part in enumerate(several) if part]
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {DESCRIPTION: {"shape": [*tensor.shape], "dtype": dtype, "parts": parts}}

    return {**map_tensors(state, described, is_sharded), "parts": own}


def _own_parts(state: State) -> tuple[dict[int, torch.Tensor], list[Any]]:
    """Return the parts that this process saves, and of each distributed tensor which one that is.

    Those are a byte and a slice; empty where this process saves none, as it has none, or another
    one has the same; None for a tensor that is not distributed as slices.
    """
    own: dict[int, torch.Tensor] = {}
    known: dict[Any, int] = {}  # tied weights are saved once
    layout: list[Any] = []
    end = 0

    def add(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal end
        found = own_slice(tensor)
        part = local_part(tensor.detach())
        if found is None or (found[1] and part.shape != found[0].size):
            layout.append(None)
        elif not found[1] or not part.numel():
            layout.append([])
        else:
            key = (part.data_ptr(), part.stride(), part.dtype, found[0])
            if key not in known:
                known[key] = end
                own[end] = part
                end += -(-part.numel() * part.element_size() // _ALIGNMENT) * _ALIGNMENT
            layout.append([known[key], *map(list, found[0])])
        return tensor

    map_tensors(state, add, is_sharded)
    return own, layout


# -- loading --------------------------------------------------------------------------------


def attach_parts(state: Mapping[str, Any], files: Mapping[int, Any]) -> dict[str, Any]:
    """Return a state with tensors in place of the descriptions that `state_dict(sharded=True)` has.

    They are read from files as they are needed: by `load_state_dict()`, `whole_tensor()` and
    `distributed_like()`.

    Args:
        state: the state, without the parts.
        files: what the files hold, by the rank of the process that has written it, as writable
            buffers, such as private memory maps.

    Raises:
        StateError: the files do not have what the descriptions say.

    Example:
        >>> import torch
        >>> from ttl_core import attach_parts, whole_tensor
        >>> parts = [[0, 0, [0], [2]], [1, 64, [2], [1]]]
        >>> described = {"shape": [3], "dtype": "uint8", "parts": parts}
        >>> state = {"model": {"bias": {"distributed tensor": described}}}
        >>> files = {0: bytearray([1, 2]), 1: bytearray(64) + bytearray([3])}
        >>> whole_tensor(attach_parts(state, files)["model"]["bias"])
        tensor([1, 2, 3], dtype=torch.uint8)
    """
    read = map_tensors(dict(state), lambda value: _stored(value, files), _is_description)
    return dict(read)


def _is_description(value: object) -> bool:
    return type(value) is dict and [*value] == [DESCRIPTION]


def _stored(value: Any, files: Mapping[int, Any]) -> StoredTensor:
    try:
        description = value[DESCRIPTION]
        dtype, shape = getattr(torch, description["dtype"]), description["shape"]
        itemsize = torch.empty((), dtype=dtype).element_size()
        parts = []
        for rank, at, start, size in description["parts"]:
            where = Slice((*start,), (*size,))
            if not all(
                first >= 0 < n <= end - first for first, n, end in zip(*where, shape, strict=True)
            ):
                raise ValueError(f"{where} of {shape}")
            n_bytes = math.prod(size) * itemsize
            flat = torch.frombuffer(files[rank], dtype=torch.uint8, count=n_bytes, offset=at)
            parts.append((where, flat.view(dtype).view(where.size)))
        n_there = sum(math.prod(where.size) for where, _ in parts)
        if n_there != math.prod(shape):
            raise ValueError(f"{n_there} numbers of {shape}")
        return StoredTensor(shape, dtype, parts)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise StateError(
            f"a distributed tensor of the state cannot be put together from its parts: {error}"
        ) from error


def with_whole_tensors(value: Any) -> Any:
    """Return a nested value with whole tensors in place of those that are in files."""
    return map_tensors(value, whole_tensor, is_stored)


def with_fitting_tensors(value: Any, model: torch.nn.Module) -> Any:
    """Return a nested value with tensors that components of a loop can use.

    Where the model is distributed, those in files stay, as what is loaded beside its parameters
    goes through `distributed_like`; else they are whole ones.

    Args:
        value: the value.
        model: the model of the loop.
    """
    return value if any(map(is_sharded, model.parameters())) else with_whole_tensors(value)
