"""Values as data that JSON can hold, and back: what is no plain value is marked.

| data | value |
|---|---|
| `{"$ref": "module:object"}` | a class, a function or a constant, which is imported |
| `{"$ref": "module:object", "lr": 0.1}` | `functools.partial` of it with these keywords |
| `{"$float": "inf"}` | a number that JSON does not have |
| `{"$object": "module.Class"}` | an object that data cannot hold, by its class |

A key of a mapping that begins with `$` is written with one more. A plain text is never imported.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import math
import operator
import re
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from ttl_core.arguments import describe, did_you_mean
from ttl_core.errors import ConfigurationError

_REFERENCE = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*", re.ASCII)
MARKS = ("$ref", "$float", "$object")
"""The keys that mark what is no plain value."""


class Reference(NamedTuple):
    """What data refer to, which is imported when a component is created with it.

    Attributes:
        text: "module:object".
        keywords: those that are fixed, as by `functools.partial`.
        where: the place in the data, for errors.
    """

    text: str
    keywords: Mapping[str, Any]
    where: str

    def __repr__(self) -> str:
        return repr(as_data(self))

    def load(self) -> Any:
        """Import what it refers to.

        Raises:
            ConfigurationError: that is not possible.
        """
        module, _, path = self.text.partition(":")
        try:
            found = operator.attrgetter(path)(importlib.import_module(module))
        except Exception as error:  # whatever the module raises
            raise ConfigurationError(
                f"{self.where} refers to {self.text!r}, but importing that raised "
                f"{type(error).__name__}: {error}"
            ) from error
        return functools.partial(found, **loaded(self.keywords)) if self.keywords else found


def as_data(value: Any) -> Any:
    """Return a value as data that JSON can hold.

    Args:
        value: the value; tuples become lists.

    Example:
        >>> as_data({"keep": (1, 2), "dtype": float, "at": {1, 2}})
        {'keep': [1, 2], 'dtype': {'$ref': 'builtins:float'}, 'at': {'$object': 'builtins.set'}}
    """
    match value:
        case Reference():
            return {"$ref": value.text, **as_data(value.keywords)}
        case None | bool():
            return value
        case int():  # subclasses, such as enums, become plain numbers
            return int(value)
        case str():
            return str.__str__(value)
        case PurePath():
            return str(value)
        case float():
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        case list() | tuple():
            return [as_data(item) for item in value]
        case Mapping():
            return {_escaped(str(key)): as_data(item) for key, item in value.items()}
        case functools.partial() if not value.args and (text := _reference_to(value.func)):
            return {"$ref": text, **as_data(value.keywords)}
    if getattr(value, "ndim", None) == 0 and hasattr(value, "tolist"):  # a number of NumPy
        return as_data(value.tolist())
    text = _reference_to(value)
    return {"$ref": text} if text else {"$object": qualified_name(value)}


def _escaped(key: str) -> str:
    return f"${key}" if key.startswith("$") else key


def _reference_to(value: Any) -> str | None:
    """Return where a class, function or member of an enum can be imported from, if it can be."""
    named: Any
    if isinstance(value, enum.Enum):
        named, path = type(value), f"{type(value).__qualname__}.{value.name}"
    elif isinstance(value, type) or inspect.isroutine(value):
        named, path = value, value.__qualname__
    else:
        return None
    module = getattr(named, "__module__", None)
    try:
        found = operator.attrgetter(path)(sys.modules[module]) if module else None
    except (AttributeError, KeyError):
        return None
    text = f"{module}:{path}"
    return text if found is value and _REFERENCE.fullmatch(text) else None


def qualified_name(value: Any) -> str:
    """Return the name of a class or function, or of an object's class."""
    named = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)


def from_data(value: Any, where: str) -> Any:
    """Return the value that data stand for, with references that are not imported yet.

    Args:
        value: the data.
        where: their place, for errors.

    Raises:
        ConfigurationError: they hold what cannot be created from data, or a malformed mark.
    """
    if isinstance(value, list | tuple):
        return [from_data(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    mark = next((key for key in MARKS if key in value), None)
    if mark is None:
        return {_unescaped(k, where): from_data(v, f"{where}[{k!r}]") for k, v in value.items()}
    given, rest = value[mark], {key: item for key, item in value.items() if key != mark}
    if mark == "$ref" and isinstance(given, str) and _REFERENCE.fullmatch(given):
        return Reference(given, from_data(rest, where), where)
    if mark == "$float" and not rest and given in ("inf", "-inf", "nan"):
        return float(given)
    if mark == "$object":
        raise ConfigurationError(
            f"{where} was an object of {given}, which data cannot hold. Replace it, as with "
            '{"$ref": "module:object"}, or write use(...) in the script'
        )
    hint = ""
    if mark == "$ref" and isinstance(given, str) and "." in given and ":" not in given:
        hint = f'Did you mean "{":".join(given.rsplit(".", 1))}"? '
    raise ConfigurationError(
        f'{where} is {describe(value)}. {hint}A reference is written as {{"$ref": '
        '"module:object"}, with further keys for functools.partial'
    )


def _unescaped(key: str, where: str) -> str:
    if not isinstance(key, str) or not key.startswith("$"):
        return key
    if not key.startswith("$$"):
        raise ConfigurationError(
            f"{where} has the key {key!r}. {did_you_mean(key, MARKS)}A key that begins with $ is "
            f"written with one more, as {f'${key}'!r}"
        )
    return key[1:]


def loaded(value: Any) -> Any:
    """Return a value with what its references refer to in place of them.

    Args:
        value: what `from_data` returned, or any other value, which is returned as it is.

    Raises:
        ConfigurationError: a reference cannot be imported.
    """
    match value:
        case Reference():
            return value.load()
        case list() if type(value) is list:
            return [loaded(item) for item in value]
        case dict() if type(value) is dict:
            return {key: loaded(item) for key, item in value.items()}
    return value
