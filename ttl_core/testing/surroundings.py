"""What a run shares with the rest of its process, and what it has left there."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ttl_core.testing.outcome import Facts, differing, shortened

_GRACE = 2.0  # seconds that threads and processes have to end

_SIGNALS = {
    f"the handler of {number.name}": number
    for number in signal.valid_signals()
    if isinstance(number, signal.Signals)
}


class Surroundings(NamedTuple):
    """What a run shares with the rest of its process.

    Attributes:
        threads: the threads and child processes, by a key of each.
        files: the open files, by their descriptor.
        process: handlers, filters and other settings of the process.
        torch: settings of torch.
    """

    threads: Facts
    files: Facts
    process: Facts
    torch: Facts


def surroundings() -> Surroundings:
    """Return what there is now."""
    return Surroundings(_threads(), _open_files(), _process_settings(), torch_settings())


def left_behind(before: Surroundings) -> dict[str, list[str]]:
    """Return in words what is not as it was, by the attribute of Surroundings that has it.

    Args:
        before: what there was.
    """
    deadline = time.monotonic() + _GRACE
    while _threads().keys() - before.threads.keys() and time.monotonic() < deadline:
        time.sleep(0.01)
    if _open_files().items() - before.files.items():
        gc.collect()  # what nothing refers to any more is closed
    now = surroundings()
    return {
        "threads": [f"{t} still runs" for k, t in now.threads.items() if k not in before.threads],
        "files": [
            f"{name} is still open"
            for number, name in now.files.items()
            if before.files.get(number) != name
        ],
        "process": changes(before.process, now.process),
        "torch": changes(before.torch, now.torch),
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return in words what has changed."""
    lines = []
    for name in differing(before, now):
        was, is_now = shortened(before.get(name), now.get(name))
        lines.append(f"{name} was {was} and is {is_now}")
    return lines


def _threads() -> Facts:
    threads = {f"thread {id(one)}": f"the thread {one.name!r}" for one in threading.enumerate()}
    children = multiprocessing.active_children()
    return threads | {f"process {one.pid}": f"the process {one.name!r}" for one in children}


def _open_files() -> Facts:
    found = {}
    with contextlib.suppress(OSError):  # where the system does not tell, as on Windows
        for number in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed
                os.fstat(int(number))
                found[number] = _target_of(number)
    return found


def _target_of(number: str) -> str:
    with contextlib.suppress(OSError):
        return f"the file {os.readlink(f'/proc/self/fd/{number}')}"
    return f"the file descriptor {number}"


def _process_settings() -> Facts:
    root = logging.getLogger()
    handlers = {name: _named(signal.getsignal(number)) for name, number in _SIGNALS.items()}
    environment = {f"the environment variable {k}": repr(v) for k, v in os.environ.items()}
    return {
        **handlers,
        **environment,
        "the number of atexit functions": str(getattr(atexit, "_ncallbacks", int)()),
        "the working directory": repr(os.getcwd()),
        "warnings.filters": repr(warnings.filters),
        "warnings.showwarning": _named(warnings.showwarning),
        "the handlers of the root logger": repr([_named(one) for one in root.handlers]),
        "the level of the root logger": str(root.level),
        "logging.disable()": str(root.manager.disable),
        "sys.path": repr(sys.path),
        "sys.stdout": _named(sys.stdout),
        "sys.stderr": _named(sys.stderr),
        "sys.excepthook": _named(sys.excepthook),
        "threading.excepthook": _named(threading.excepthook),
        "the trace function": _named(sys.gettrace()),
        "the profile function": _named(sys.getprofile()),
        "the recursion limit": str(sys.getrecursionlimit()),
        "the timer of SIGALRM": str(getattr(signal, "getitimer", lambda _: (0.0,))(0)[0] > 0),
        "faulthandler": str(faulthandler.is_enabled()),
        "tracemalloc": str(tracemalloc.is_tracing()),
        "the garbage collector": str((gc.isenabled(), gc.get_threshold())),
        **_numpy_settings(),
    }


def _numpy_settings() -> Facts:
    numpy = sys.modules.get("numpy")
    return {} if numpy is None else {"the error handling of NumPy": str(numpy.geterr())}


def torch_settings() -> Facts:
    """Return the settings of torch that hold for the whole process, or this thread."""
    cudnn: Any = torch.backends.cudnn
    deterministic: Any = torch.utils.deterministic
    hooks = torch.nn.modules.module
    return {
        "the default dtype": str(torch.get_default_dtype()),
        "the default device": str(torch.get_default_device()),
        "the grad mode": str(torch.is_grad_enabled()),
        "the inference mode": str(torch.is_inference_mode_enabled()),
        "anomaly detection": str(torch.is_anomaly_enabled()),
        "autocast on the CPU": str(
            (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"))
        ),
        "autocast on CUDA": str(
            (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
        ),
        "the cache of autocast": str(torch.is_autocast_cache_enabled()),
        "deterministic algorithms": str(
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
                deterministic.fill_uninitialized_memory,
            )
        ),
        "torch.backends.cudnn": str((cudnn.enabled, cudnn.deterministic, cudnn.benchmark)),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "the number of threads of torch": str(torch.get_num_threads()),
        "flushing of denormal numbers": str(_is_flushing()),
        "the options of printed tensors": repr(vars(torch._tensor_str.PRINT_OPTS)),
        "the modes of functions of torch": str(
            (
                torch._C._len_torch_function_stack(),
                torch._C._len_torch_dispatch_stack(),
            )
        ),
        "the global hooks of modules": str(
            [
                len(hooks._global_forward_hooks),
                len(hooks._global_forward_pre_hooks),
                len(hooks._global_backward_hooks),
                len(hooks._global_backward_pre_hooks),
            ]
        ),
        "the global hooks of optimizers": str(
            [
                len(_global_optimizer_pre_hooks),
                len(_global_optimizer_post_hooks),
            ]
        ),
        "torch.nn.Module.__call__": _named(torch.nn.Module.__call__),
        "torch.Tensor.backward": _named(torch.Tensor.backward),
        "torch.save": _named(torch.save),
    }


_DENORMAL = torch.tensor([1e-310], dtype=torch.float64)


def _is_flushing() -> bool:
    return float(_DENORMAL * 1) == 0


def _named(value: object) -> str:
    """Return the name of a function or object, which tells it from others."""
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{name} ({id(value):#x})" if value is not None else "None"
