"""Memory: sizes in text, what a call takes, and errors that say that there is too little."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from ttl_core import ArgumentError, RunError
from ttl_core.arguments import describe, whole_number

T = TypeVar("T")

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?)?B\s*", re.ASCII)
_UNITS = {None: 1} | {
    f"{letter}{binary}": (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGT", 1)
    for binary in ("", "i")
}


def n_bytes(name: str, value: Any) -> int:
    """Return a number of bytes, given as such or as text.

    Args:
        name: the name of the argument, for the error.
        value: a whole number from 1, or text such as "2GiB" or "500MB".

    Raises:
        ArgumentError: it is something else.

    Example:
        >>> n_bytes("memory_limit", "1.5 KiB"), n_bytes("memory_limit", "2GB")
        (1536, 2000000000)
    """
    if not isinstance(value, str):
        return whole_number(name, value, at_least=1)
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ArgumentError(
            f"{name} is {describe(value)}, but has to be a number of bytes, or text such as "
            "'2GiB' or '500MB'"
        )
    return whole_number(name, int(float(match[1]) * _UNITS[match[2]]), at_least=1)


def is_short_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device, or the system, has too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def if_memory_suffices(call: Callable[[], T]) -> T | None:
    """Return what a call returns; None if a device, or the system, had too little memory for it."""
    result = None
    try:
        result = call()
    except Exception as error:
        if not is_short_of_memory(error):
            raise
    gc.collect()  # components and their loop hold each other
    torch.cuda.empty_cache()  # which has no effect without CUDA
    return result


def resident_growth(prepare: Callable[[], T], call: Callable[[T], object]) -> int | None:
    """Return by how many bytes a call lets the resident memory of a process grow at most.

    It is made in a fork of this process, which is not changed by it. The fork computes in one
    thread, as those of this process are not part of it.

    Args:
        prepare: returns what is there before.
        call: is called with that.

    Returns:
        The growth; None if the fork had too little memory, or was killed for it.

    Raises:
        ArgumentError: this system forks no processes.
        RunError: the call raised another error.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ArgumentError("memory_limit takes a system that can fork processes, as Linux")
    # The first optimizer imports much of torch. It would take time and memory in each fork; and in
    # this process it is about to do so anyway.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0).zero_grad()
    # What the fork would free meanwhile would make room that is not counted.
    gc.collect()
    _release_free_memory()
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sending, prepare, call))
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork where there are threads; this one needs none of them
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sending.close()
    with receiving:
        try:
            growth, failure = receiving.recv()
        except EOFError:  # it was killed
            growth, failure = None, None
        finally:
            process.join()
    if failure is not None:
        raise RunError(f"a trial of training in a process of its own has failed: {failure}")
    return None if growth is None else int(growth)


def _measure(sending: Connection, prepare: Callable[[], T], call: Callable[[T], object]) -> None:
    growth, failure = None, None
    gc.freeze()  # looking at what the parent has would copy it, which takes time and counts
    try:
        torch.set_num_threads(1)
        prepared = prepare()
        before = _peak()
        call(prepared)
        growth = _peak() - before
    except Exception as error:
        if not is_short_of_memory(error):
            failure = f"{type(error).__name__}: {error}"
    sending.send((growth, failure))


def _release_free_memory() -> None:
    """Give memory that malloc keeps for later back to the system, where it is that of glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _peak() -> int:
    """Return the most memory that this process has had; in a fork, from its beginning on."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
