"""The types that a state may hold: those that `torch.load(weights_only=True)` accepts."""

from __future__ import annotations

import contextlib
import functools
import io
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ttl_core.errors import StateError
from ttl_core.shards import is_sharded
from ttl_core.state.snapshot import is_dense

_PLAIN = {type(None), bool, float, complex, str}
_TENSORS = {torch.Tensor, torch.nn.Parameter}
_CONTAINERS = {dict, OrderedDict, list, tuple}
_ADVICE = {
    "numpy.ndarray": "torch.from_numpy(...)",
    "torch._C.Generator": "its get_state()",
    "collections.deque": "list(...)",
    "collections.defaultdict": "dict(...)",
}


def check_accepted(value: Any, path: str, owner: str, *, may_be_lazy: bool = False) -> None:
    """Check that `torch.load(weights_only=True)` accepts a nested value.

    Args:
        value: the value.
        path: its name, with which paths to its leaves begin.
        owner: the object whose state it is, for the error.
        may_be_lazy: whether parameters may be uninitialized, as before the first batch.

    Raises:
        StateError: it does not; the message gives the path to the leaf, its type and the fix.
    """
    for leaf_path, leaf in _leaves(value, path):
        if not _is_accepted(leaf) and not (may_be_lazy and is_lazy(leaf)):
            cls = type(leaf)
            raise StateError(
                f"{owner} has state that torch.load(weights_only=True) refuses: {leaf_path} is "
                f"{cls.__module__}.{cls.__qualname__}: return {_advice(leaf)}"
            )


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested value that need a check, each with its path."""
    if type(value) not in _CONTAINERS:
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _is_plain_leaf(key):
                yield f"the key {key!r} of {path}", key
            yield from _leaves(item, f"{path}.{key}")
    else:
        for i, item in enumerate(value):
            if not _is_plain_leaf(item):
                yield from _leaves(item, f"{path}.{i}")


def _is_plain_leaf(value: Any) -> bool:
    if type(value) in _TENSORS:
        return is_dense(value) or value.layout in _loadable_layouts()
    return type(value) in _PLAIN or (type(value) is int and value.bit_length() < 1024)


def _is_accepted(value: Any) -> bool:
    if _is_plain_leaf(value) or is_sharded(value):  # the latter are whole in states of groups
        return True
    if isinstance(value, torch.Tensor) and (is_lazy(value) or value.is_meta):
        return False  # the latter could be saved, but has no values
    return _is_loadable(value)


def _is_loadable(value: Any) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(value, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True)
    except Exception:
        return False
    return True


@functools.cache
def _loadable_layouts() -> frozenset[torch.layout]:
    """Return the sparse layouts that files can hold, so that large tensors need not be tried."""
    layouts = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
    return frozenset(
        layout for layout in layouts if _is_loadable(torch.eye(2).to_sparse(layout=layout))
    )


def _advice(value: Any) -> str:
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if name in _ADVICE:
        return _ADVICE[name]
    if hasattr(value, "__fspath__"):
        return "str(...)"
    if isinstance(value, torch.Tensor):
        if is_lazy(value):
            return "it after the first batch, which initializes its layer"
        if value.is_meta:
            return "one with values: this one is on the meta device, and has none"
        return "a plain tensor, such as its to_dense() or dequantize()"
    if hasattr(value, "item"):  # a scalar of NumPy
        with contextlib.suppress(Exception):  # an item() that is no such method
            return f"{type(value.item()).__name__}(...)"
    if hasattr(value, "__dataclass_fields__"):
        return "dataclasses.asdict(...)"
    if hasattr(cls, "__members__"):
        return "its value"
    for base in (dict, list, tuple, str, int, float):
        if isinstance(value, base):
            return f"{base.__name__}(...)"
    return "plain Python values and tensors, and recreate it from them when they are loaded"
