"""What functions of a script refer to: generators and numbers that no state can hold."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from ttl_core import generator_state

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_DEEPEST = 4  # of attributes of attributes, and of functions that functions call
_LONGEST = 100  # of lists and dicts
_OF_LIBRARIES = {*sys.stdlib_module_names, "torch", "numpy", "ttl_core"}
_LEAVES = (torch.Tensor, str, bytes, type, type(sys), torch.optim.Optimizer)

Captured = dict[tuple[str, str], Any]
"""Generators and numbers, by their owner and the words that say where they are."""


def captured_by_functions(loop: TrainTestLoop) -> Captured:
    """Return the generators and numbers in closures and global variables that a run refers to.

    The functions are those of the data and the model, and the methods of components.

    Args:
        loop: the loop.
    """
    roots: dict[str, Any] = {"train_data": loop.train_data, "valid_data": loop.valid_data}
    roots["the model"] = loop.model
    names = loop.components.names()
    roots |= {f"component {n!r}": c for n, c in zip(names, loop.components, strict=True)}
    found: Captured = {}
    seen = {id(loop), id(loop.components)}
    for owner, root in roots.items():
        for where, value in _walk(root, seen, 0):
            found[owner, where] = value
    return found


def generator_text(value: Any) -> str | None:
    """Return a text that tells the states of generators apart; None for another value."""
    state = generator_state(value)
    if state is None:
        return None
    (numbers,) = state.values()
    is_tensor = isinstance(numbers, torch.Tensor)
    data = numbers.numpy().tobytes() if is_tensor else repr(numbers).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def _walk(value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """Yield what the functions that are reached from a value refer to, with where it is."""
    if depth > _DEEPEST or isinstance(value, _LEAVES) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, FunctionType | MethodType):
        yield from _referred_to(inspect.unwrap(value), seen, depth)
        return
    items: list[Any]
    if isinstance(value, functools.partial):
        items = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, DataLoader):
        items = [value.dataset, value.collate_fn, value.sampler, value.batch_sampler]
    else:
        items = [*_methods(value), *(getattr(value, "__dict__", None) or {}).values()]
    if isinstance(value, list | tuple | dict) and len(value) <= _LONGEST:
        items += value.values() if isinstance(value, dict) else value
    for item in items:
        yield from _walk(item, seen, depth + 1)


def _methods(value: Any) -> Iterator[FunctionType]:
    """Yield the functions of the classes of a value, but those of libraries."""
    for cls in type(value).__mro__:
        if cls.__module__.partition(".")[0] not in _OF_LIBRARIES:
            yield from (each for each in vars(cls).values() if isinstance(each, FunctionType))


def _referred_to(function: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    code = getattr(function, "__code__", None)
    if code is None or str(function.__module__).partition(".")[0] in _OF_LIBRARIES:
        return
    everywhere = function.__globals__
    values = {name: everywhere[name] for name in _names_in(code) if name in everywhere}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # it is not set yet
            continue
    by = function.__qualname__.rpartition("<locals>.")[2]
    for name, value in values.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or generator_text(value) is not None:
            yield f"{name!r} that {by} refers to", value
        elif isinstance(value, FunctionType):
            yield from _walk(value, seen, depth + 1)


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names of variables in the code of a function, and of comprehensions in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
