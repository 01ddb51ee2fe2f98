"""What checks leave of settings of the process, put back, so that each check finds them unchanged.

Most bugs of this kind show once in a process: a variable of the environment that is set already
is not seen to change when it is set again.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ttl_core.testing.surroundings import EXCHANGED, umask
from ttl_core.testing.torch_settings import (
    GLOBAL_HOOKS,
    PATCHED,
    PRINTED,
    SETTINGS,
    Setting,
)

_NOT_OF_COMPONENTS = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_", "TRITON_")
"""Beginnings of environment variables that pytest, or torch when it is first used, sets itself."""

Restore = Callable[[], object]


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Restore settings of the process and of torch at the end of a with block."""
    restores = [*_of_process(), *_of_signals(), *_of_numpy(), *_of_torch()]
    restores += [_restoring(setting) for setting in SETTINGS.values()]
    environment, folder = dict(os.environ), os.getcwd()
    try:
        yield
    finally:
        for restore in restores:
            restore()
        _restore_environment(environment)
        with contextlib.suppress(OSError):  # the folder is gone
            if not os.path.isdir(".") or os.getcwd() != folder:
                os.chdir(folder)


def _of_process() -> Iterator[Restore]:
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]

    def log() -> None:
        root.setLevel(level)
        root.handlers[:] = handlers

    yield log
    filters = [*warnings.filters]

    def warn() -> None:
        if [*warnings.filters] != filters:
            with contextlib.suppress(AttributeError, TypeError):  # filters are a list in CPython
                warnings.filters[:] = filters  # type: ignore[index]
                warnings._filters_mutated()  # type: ignore[attr-defined]

    yield warn
    yield gc.enable if gc.isenabled() else gc.disable
    yield partial(gc.set_threshold, *gc.get_threshold())
    yield partial(logging.disable, root.manager.disable)
    yield partial(os.umask, umask())
    for home, name in EXCHANGED:
        yield _attribute(home, name)
    limit = sys.getrecursionlimit()
    yield lambda: sys.setrecursionlimit(limit)
    paths = [*sys.path]
    yield lambda: sys.path.__setitem__(slice(None), paths)


def _attribute(home: Any, name: str) -> Restore:
    value = getattr(home, name)

    def restore() -> None:
        if getattr(home, name) is not value:  # writing to a class makes Python forget its methods
            setattr(home, name, value)

    return restore


def _of_numpy() -> Iterator[Restore]:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield partial(numpy.seterr, **numpy.geterr())
        yield partial(numpy.set_printoptions, **numpy.get_printoptions())


def _of_torch() -> Iterator[Restore]:
    yield partial(vars(PRINTED).update, {**vars(PRINTED)})
    for hooks in GLOBAL_HOOKS:
        yield partial(_refill, hooks, {**hooks})
    for home, name in PATCHED:
        yield _attribute(home, name)


def _refill(one: dict[Any, Any], found: dict[Any, Any]) -> None:
    one.clear()
    one.update(found)


def _of_signals() -> Iterator[Restore]:
    if threading.current_thread() is not threading.main_thread():
        return
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore() -> None:
        for number, handler in found.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    yield restore


def _restoring(setting: Setting) -> Restore:
    value = setting.read()
    return lambda: setting.read() == value or setting.write(value)


def _restore_environment(found: dict[str, str]) -> None:
    for name in {*os.environ, *found}:
        if name.startswith(_NOT_OF_COMPONENTS):
            continue
        if name not in found:
            del os.environ[name]
        elif os.environ.get(name) != found[name]:
            os.environ[name] = found[name]
