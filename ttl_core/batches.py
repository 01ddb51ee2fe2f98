"""The tensors in a batch or in scores, which may be nested structures of any kind."""

from __future__ import annotations

import copy
import warnings
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ttl_core.arguments import describe, one_of, user_stacklevel
from ttl_core.errors import ArgumentError


def length_of_batch(batch: Any) -> int | None:
    """Return the length of the first tensor in a batch, or None if there is none.

    Args:
        batch: a tensor, or a nested structure of lists, tuples, mappings and objects.

    Example:
        >>> length_of_batch({"inputs": torch.ones(4, 2), "targets": torch.ones(4)})
        4
    """
    first = batch[0] if isinstance(batch, (list, tuple)) and batch else batch
    if isinstance(first, torch.Tensor) and (shape := first.shape):  # as in most batches
        return shape[0]
    first = next(_iterate_tensors(batch, seen=set()), None)
    return None if first is None else first.size(0)


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Return the inputs and the targets of a pair, or of what names them.

    Args:
        batch: what the data yielded.

    Returns:
        Inputs and targets: of a mapping by key, of an object such as a named tuple or a dataclass
        by attribute. A batch of any other type is inputs alone, and its targets are None.

    Example:
        >>> from ttl_core import split_batch
        >>> split_batch({"inputs": 1, "targets": 2})
        (1, 2)
        >>> split_batch([1])
        (1, None)
    """
    if isinstance(batch, Mapping) and "inputs" in batch:
        return batch["inputs"], batch.get("targets")
    if hasattr(batch, "inputs"):  # before pairs: fields may be in any order
        return batch.inputs, getattr(batch, "targets", None)
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, list | tuple) and len(batch) == 1:
        return batch[0], None
    return batch, None


def describe_batch(value: Any, depth: int = 3) -> str:
    """Return types and shapes of the tensors in a batch, as text.

    Args:
        value: a tensor, or a nested structure of lists, tuples and mappings.
        depth: how many levels of it are shown.

    Example:
        >>> from ttl_core import describe_batch
        >>> describe_batch((torch.ones(4, 2), {"ids": torch.tensor(3), "name": "a"}))
        "(float32[4, 2], {'ids': int64[], 'name': str})"
    """
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{[*value.shape]}"
    if depth and isinstance(value, Mapping):
        shown = [f"{k!r}: {describe_batch(value[k], depth - 1)}" for k in [*value][:_MAX_SHOWN]]
        return f"{{{', '.join([*shown, *['...'] * (len(value) > _MAX_SHOWN)])}}}"
    if depth and isinstance(value, list | tuple):
        shown = [describe_batch(item, depth - 1) for item in value[:_MAX_SHOWN]]
        text = ", ".join([*shown, *["..."] * (len(value) > _MAX_SHOWN)])
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    return type(value).__name__


_MAX_SHOWN = 6  # items of a level of a batch


def to_cpu(value: Any) -> Any:
    """Return a nested structure with its tensors on the CPU, without their graphs.

    Args:
        value: a tensor, or a nested structure of lists, tuples and mappings.

    Example:
        >>> to_cpu({"scores": [torch.ones(2, requires_grad=True)]})
        {'scores': [tensor([1., 1.])]}
    """

    def moved(item: Any) -> Any:
        return item.detach().to("cpu") if isinstance(item, torch.Tensor) else item

    return map_nested(moved, value)


def to_device(value: Any, device: torch.device) -> Any:
    """Return a nested structure with its tensors on a device, without waiting for them.

    Args:
        value: tensors, other objects with `to()`, or mappings, lists and tuples of them.
        device: the device.

    Returns:
        The same structure, of the same types. Values without `to()` are in it as they are.

    Raises:
        ArgumentError: a mapping cannot be created from a dict.

    Example:
        >>> from ttl_core import to_device
        >>> to_device({"inputs": torch.ones(2), "name": "a"}, torch.device("meta"))
        {'inputs': tensor(..., device='meta', size=(2,)), 'name': 'a'}
    """
    # first what most batches are, as calling `to` for nothing takes longer than the rest
    if isinstance(value, torch.Tensor) and value.device == device:
        return value
    if type(value) is tuple:
        return tuple([to_device(item, device) for item in value])

    def move(item: Any) -> Any:
        return item.to(device, non_blocking=True) if hasattr(item, "to") else item

    return map_nested(move, value)


def map_nested(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a nested structure of the same types with a function applied to what it holds.

    Args:
        function: is called with each value that is no mapping, list or tuple, and with each that
            has a method `to()`, as batches of some libraries.
        value: a mapping, list or tuple, of which the structure is kept, or any other value.

    Returns:
        The structure. A mapping keeps its type and attributes.

    Raises:
        ArgumentError: a mapping cannot be created from a dict.

    Example:
        >>> from ttl_core import map_nested
        >>> map_nested(lambda item: item + 1, {"a": [1, 2], "b": (3,)})
        {'a': [2, 3], 'b': (4,)}
    """
    if hasattr(value, "to") or not isinstance(value, Mapping | list | tuple):
        return function(value)
    if isinstance(value, Mapping):
        items = {key: map_nested(function, item) for key, item in value.items()}
        return items if type(value) is dict else _mapping_like(value, items)
    mapped = [map_nested(function, item) for item in value]
    return type(value)(*mapped) if hasattr(value, "_fields") else type(value)(mapped)


def _mapping_like(value: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    """Return a mapping of the type of another one, and with what else that holds."""
    if isinstance(value, dict | UserDict):  # whose copies have items of their own
        result = copy.copy(value)
        for key, item in items.items():
            result[key] = item
        return result
    if all(items[key] is item for key, item in value.items()):
        return value
    try:
        return type(value)(items)  # type: ignore[call-arg]
    except TypeError as error:
        raise ArgumentError(
            f"a {type(value).__name__} is a mapping that cannot be moved to a device, as none can "
            "be created from a dict. Give it a method to(device, non_blocking) that returns one "
            "with its tensors moved"
        ) from error


def prefixed(prefix: str, metrics: Mapping[str, Any], level: str) -> dict[str, Any]:
    """Return the values of a call of loop.log by their full names, with tensors detached.

    Args:
        prefix: what the names begin with.
        metrics: values by name.
        level: the level of the call, which is checked.

    Raises:
        ArgumentError: the metrics are no mapping of names, or there is no such level.
    """
    if level not in ("batch", "epoch") or not isinstance(metrics, Mapping):
        if not isinstance(metrics, Mapping):
            raise ArgumentError(
                f"log() was given {describe(metrics)}, but takes values by name. Write "
                f"loop.log({{'loss': value}}), or with level='epoch'"
            )
        one_of("level", level, ("batch", "epoch"))
    names = _full_names.get(prefix)
    if names is None:
        names = _full_names[prefix] = _FullNames(prefix)
    try:
        return {
            # detaching one that has no graph would take longer than all else here
            names[name]: value.detach() if getattr(value, "requires_grad", False) else value
            for name, value in metrics.items()
        }
    except TypeError:
        wrong = [name for name in metrics if not isinstance(name, str)]
        if not wrong:
            raise
        raise ArgumentError(
            f"log() was given a value named {describe(wrong[0])}, but names are text. Write "
            "loop.log({'loss': value})"
        ) from None


class _FullNames(dict[str, str]):
    """Full names by what was logged.

    One text for all steps costs all that look it up, compare it or write it less than a new one.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __missing__(self, name: str) -> str:
        full = self._prefix + name
        if len(self) < _MAX_NAMES:
            self[name] = full
            phase = self._prefix.partition("/")[0]
            if phase and name.startswith(f"{phase}/"):
                own = name.removeprefix(self._prefix).removeprefix(f"{phase}/")
                warnings.warn(
                    f"log() was given a value named {name!r}, and adds the phase by itself: it is "
                    f"logged as {full!r}. Write loop.log({{{own!r}: value}})",
                    UserWarning,
                    stacklevel=user_stacklevel(),
                )
        return full


_MAX_NAMES = 1000  # of one prefix: names may be made up for each step
_full_names: dict[str, _FullNames] = {}


def _iterate_tensors(value: Any, seen: set[int]) -> Iterator[torch.Tensor]:
    """Yield the tensors of a batch that have a length, wherever they are in it."""
    if isinstance(value, torch.Tensor):
        if value.dim():
            yield value
        return
    if id(value) in seen or isinstance(value, str | bytes):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, list | tuple):
        items = list(value)
    else:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        items = [getattr(value, name, None) for name in [*slots, *getattr(value, "__dict__", ())]]
    for item in items:
        yield from _iterate_tensors(item, seen)
