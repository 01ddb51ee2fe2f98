"""What importing a package does besides, seen in a process that is forked for it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

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


def side_effects_of_import(module: str) -> list[str]:
    """Return in words what importing a module does besides, where that is imported already.

    It is imported again, with all of its package, in a copy of this process. What the packages do
    that it depends on does not count, as they are imported already.

    Args:
        module: its name.

    Raises:
        AssertionError: it cannot be imported a second time, or that takes too long.
    """
    done = call_forked(lambda: _describe_import(module), _TIMEOUT)
    if done.failure:
        raise AssertionError(f"importing {module} {done.failure}")
    if "error" in done.value:
        raise AssertionError(f"importing {module} fails: {done.value['error']}")
    return list(done.value["lines"])


def _describe_import(module: str) -> dict[str, Any]:
    try:
        return {"lines": _import_again(module)}
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}


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
