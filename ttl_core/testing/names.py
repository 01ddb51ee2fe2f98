"""The global names that functions use: one that does not exist is an error when it is reached.

Such an error may never be seen, where the code is seldom reached, or catches all exceptions.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import sys
from collections.abc import Iterator
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any

from ttl_core.components.component import LoopComponent
from ttl_core.testing.inside import own_classes


def undefined_names(component: LoopComponent) -> Iterator[str]:
    """Yield in words the names that exist nowhere, and where its classes and modules use them.

    Args:
        component: the component.
    """
    classes = own_classes(component)
    names = {cls.__module__ for cls in classes} & sys.modules.keys()
    modules = [sys.modules[name] for name in names]
    homes = [*classes, *modules]
    functions = [f for home in homes for f in _functions_of(home)]
    used = [
        (f, code, i)
        for f in functions
        for code in _codes(f.__code__)
        if "NameError" not in code.co_names  # else it asks whether a name exists
        for i in _globals(code)
    ]
    set_later = {i.argval for _, _, i in used if i.opname == "STORE_GLOBAL"}
    for function, code, instruction in used:
        name = instruction.argval
        if not (name in function.__globals__ or hasattr(builtins, name) or name in set_later):
            line = instruction.positions.lineno if instruction.positions else None
            where = f"{code.co_filename}:{line or code.co_firstlineno}"
            yield f"{name!r} in {code.co_qualname}, {where}"


def _functions_of(home: Any) -> Iterator[FunctionType]:
    """Yield the functions that a class or module defines, without what wraps them."""
    module = home.__module__ if isinstance(home, type) else home.__name__
    for value in vars(home).values():
        for part in _parts_of(value):
            function = inspect.unwrap(part) if isinstance(part, FunctionType) else part
            if isinstance(function, FunctionType) and function.__module__ == module:
                yield function


def _parts_of(value: Any) -> tuple[Any, ...]:
    """Return a value, or what it is made of; a value of another package is not asked for it."""
    if isinstance(value, property):
        return value.fget, value.fset
    if isinstance(value, cached_property):
        return (value.func,)
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    return value, inspect.getattr_static(value, "__wrapped__", None)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _globals(code: CodeType) -> Iterator[dis.Instruction]:
    return (i for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "STORE_GLOBAL"))
