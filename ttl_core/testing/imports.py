"""What importing a package does besides, seen in a process that is forked for it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from ttl_core.processes import call_forked
from ttl_core.testing.outcome import random_facts
from ttl_core.testing.surroundings import changes, left_behind, surroundings

_TIMEOUT = 60.0  # seconds

_AUDITED = {
    "os.mkdir": "made the folder {0!r}",
    "os.remove": "removed the file {0!r}",
    "os.rename": "renamed {0!r}",
    "os.system": "ran the command {0!r}",
    "subprocess.Popen": "started the program {0!r}",
    "socket.connect": "opened a connection to {1!r}",
}


class Imported(NamedTuple):
    """What importing a module anew has led to, in words.

    Attributes:
        side_effects: what the import did besides.
        used_up: what the first component that was created has taken away from those after it.
    """

    side_effects: list[str]
    used_up: list[str]


def import_anew(module: str, create: Callable[[ModuleType], object]) -> Imported:
    """Import a module again that is imported already, and create the first component of it.

    It is imported with all of its package, in a copy of this process. What the packages do that it
    depends on does not count, as they are imported already.

    Args:
        module: its name.
        create: takes the module, and creates the component.

    Raises:
        AssertionError: it cannot be imported a second time, or that takes too long.
    """
    done = call_forked(lambda: _describe_import(module, create), _TIMEOUT)
    if done.failure:
        raise AssertionError(f"importing {module} {done.failure}")
    if "error" in done.value:
        raise AssertionError(f"importing {module} fails: {done.value['error']}")
    return Imported(**done.value)


def _describe_import(module: str, create: Callable[[ModuleType], object]) -> dict[str, Any]:
    try:
        lines = _import_again(module)
        return {"side_effects": lines, "used_up": _used_up_by_the_first(module, create)}
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _used_up_by_the_first(module: str, create: Callable[[ModuleType], object]) -> list[str]:
    before = _sizes(module)
    with contextlib.suppress(Exception):  # other checks find what fails
        create(sys.modules[module])
    return [
        f"{name} had {before[name]} items, and {size} after a component was created"
        for name, size in _sizes(module).items()
        if size < before.get(name, size)
    ]


def _sizes(module: str) -> dict[str, int]:
    """Return how many items the global variables of a package hold, by name."""
    root = module.partition(".")[0]
    return {
        f"the global variable {name}.{variable}": len(value)
        for name, one in [*sys.modules.items()]
        if name.partition(".")[0] == root and isinstance(one, ModuleType)
        for variable, value in vars(one).items()
        if isinstance(value, list | dict | set | deque)
    }


def _import_again(module: str) -> list[str]:
    root = module.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == root]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    lines: list[str] = []
    _audit(lines)
    importlib.invalidate_caches()
    before, streams = surroundings(), random_facts()
    del lines[:]
    importlib.import_module(module)
    found = [*lines]
    for kind in left_behind(before).values():
        found += kind
    return found + changes(streams, random_facts())


def _audit(lines: list[str]) -> None:
    """Note what Python is asked to do to files, programs and connections."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                lines.append(f"opened the file {path!r} for writing ({mode})")
        elif event in _AUDITED:
            lines.append(_AUDITED[event].format(*arguments))

    sys.addaudithook(hook)
