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
from typing import Any

import torch

_NOT_OF_COMPONENTS = ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_", "TRITON_")
"""Beginnings of environment variables that pytest, or torch when it is first used, sets itself."""

Restore = Callable[[], object]


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Restore settings of the process and of torch at the end of a with block."""
    restores = [*_of_process(), *_of_torch(), *_of_signals()]
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
    for home, name in (
        *((sys, "stdout"), (sys, "stderr"), (sys, "excepthook")),
        *((threading, "excepthook"), (warnings, "showwarning")),
    ):
        yield _attribute(home, name)
    limit = sys.getrecursionlimit()
    yield lambda: sys.setrecursionlimit(limit)
    paths = [*sys.path]
    yield lambda: sys.path.__setitem__(slice(None), paths)


def _attribute(home: Any, name: str) -> Restore:
    value = getattr(home, name)
    return lambda: setattr(home, name, value)


def _of_signals() -> Iterator[Restore]:
    if threading.current_thread() is not threading.main_thread():
        return
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def restore() -> None:
        for number, handler in found.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    yield restore


def _of_torch() -> Iterator[Restore]:
    cudnn: Any = torch.backends.cudnn
    dtype = torch.get_default_dtype()
    is_strict = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    yield lambda: torch.use_deterministic_algorithms(is_strict, warn_only=warns)
    yield lambda: torch.set_default_dtype(dtype)
    for read, write in (
        (torch.get_default_device, torch.set_default_device),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_num_threads, torch.set_num_threads),
    ):
        yield _setting(read, write)
    for kind in ("cpu", "cuda"):
        autocasts, precision = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        yield lambda k=kind, on=autocasts: torch.set_autocast_enabled(k, on)  # type: ignore[misc]
        yield lambda k=kind, to=precision: torch.set_autocast_dtype(k, to)  # type: ignore[misc]
    for name in ("enabled", "deterministic", "benchmark"):
        yield _attribute(cudnn, name)


def _setting(read: Callable[[], Any], write: Callable[[Any], object]) -> Restore:
    value = read()
    return lambda: read() == value or write(value)


def _restore_environment(found: dict[str, str]) -> None:
    for name in {*os.environ, *found}:
        if name.startswith(_NOT_OF_COMPONENTS):
            continue
        if name not in found:
            del os.environ[name]
        elif os.environ.get(name) != found[name]:
            os.environ[name] = found[name]
