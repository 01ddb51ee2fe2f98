"""The state of an object that has no methods for it: its attributes that are plain values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

_OF_LIBRARY = ("model", "_model", "params")
"""What a library sets."""

_NOT_PLAIN = object()


def plain_attributes(owner: object) -> dict[str, Any]:
    """Return the attributes of an object that are numbers, texts, arrays, or hold nothing else.

    Those that its class is given as arguments are settings of a script, and not among them.

    Args:
        owner: the object.

    Returns:
        Copies, of types that a state may hold.
    """
    settings = {*_OF_LIBRARY, *inspect.signature(type(owner)).parameters}
    found = {name: _plain(v) for name, v in vars(owner).items() if name not in settings}
    return {name: value for name, value in found.items() if value is not _NOT_PLAIN}


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value).__module__ == "numpy":
        is_number = getattr(value, "dtype", None) is not None and value.dtype.kind in "biuf"
        if not is_number:
            return _NOT_PLAIN
        return {"numpy": torch.as_tensor(value).clone()} if value.shape else value.item()
    if type(value) in (list, tuple):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if _NOT_PLAIN in items else type(value)(items)
    if type(value) is dict and all(type(key) in (int, str) for key in value):
        values = {key: _plain(item) for key, item in value.items()}
        return _NOT_PLAIN if _NOT_PLAIN in values.values() else values
    return _NOT_PLAIN


def restored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they were.

    Args:
        values: what `plain_attributes` returned.
    """
    return {name: _restored(value) for name, value in values.items()}


def _restored(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_restored(item) for item in value)
    if isinstance(value, Mapping):
        if value.keys() == {"numpy"}:
            return value["numpy"].clone().numpy()
        return {key: _restored(item) for key, item in value.items()}
    return value


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that have changed, or are new.

    Args:
        before: what `plain_attributes` returned before.
        now: what it returns now.
    """
    return {n: v for n, v in now.items() if n not in before or not _is_same(before[n], v)}


def _is_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)
