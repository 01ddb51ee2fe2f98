"""Components with one bug each, and what the kit says of them."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ttl_core import LoopComponent
from ttl_core.testing import ComponentConformance, Step

SPECIMENS: dict[type, tuple[str, str]] = {}
"""The check that has to find the bug of each class, and words of its message."""


def found_by(check: str, words: str) -> Callable[[type], type]:
    """Register a class with a bug.

    Args:
        check: the check that finds it, without "test_".
        words: words of its message.
    """

    def register(cls: type) -> type:
        SPECIMENS[cls] = (f"test_{check}", words)
        return cls

    return register


def names_in_specimens() -> set[str]:
    """Return the names of checks in the modules of specimens."""
    modules = Path(__file__).parents[1].glob("conformance/test_specimens_*.py")
    text = "".join(module.read_text() for module in modules)
    registered = {f"test_{name}" for name in re.findall(r'@?found_by\(\s*"(\w+)"', text)}
    return registered | {name for name in checks() if f'"{name}"' in text}


def specimens_of(module: str) -> list[type]:
    """Return the classes that a module has registered."""
    return [cls for cls in SPECIMENS if cls.__module__ == module]


def kit_for(make: Callable[[], LoopComponent], **attributes: Any) -> ComponentConformance:
    """Return the kit for plain steps and a component.

    Args:
        make: makes the component.
        **attributes: attributes of the kit.
    """

    class Kit(ComponentConformance):
        def make_components(self) -> list[Any]:
            return [Step(), make()]

    return type("Kit", (Kit,), attributes)()


def calls_of(kit: ComponentConformance, check: str) -> Iterator[Callable[[], None]]:
    """Yield the calls of a check, one for each of its parameters."""
    method = getattr(kit, check)
    axes = [
        [(mark.args[0], value) for value in mark.args[1]]
        for mark in getattr(method, "pytestmark", [])
        if mark.name == "parametrize"
    ]
    for values in itertools.product(*axes):
        yield lambda values=values: method(**dict(values))


def failure(kit: ComponentConformance, check: str) -> str:
    """Return the message of a check that fails; "" if it passes, or is skipped."""
    for call in calls_of(kit, check):
        try:
            call()
        except pytest.skip.Exception:
            return ""
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def checks() -> list[str]:
    """Return the names of all checks, in order."""
    found = inspect.getmembers(ComponentConformance, inspect.isfunction)
    return [name for name, _ in found if name.startswith("test_")]
