"""Which process of a group has failed first, told without waiting for any of them."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import torch.distributed as dist

from ttl_core import GroupError

_KEY = "ttl/first-failure"


def record_failure(exception: BaseException, rank: int) -> None:
    """Record that this process fails, in the group's store and for torchrun's summary.

    Nothing in here waits for another process, but for the one that keeps the store.

    Args:
        exception: what it fails with.
        rank: its number.
    """
    line = f"rank {rank} on {socket.gethostname()}: {type(exception).__name__}: {exception}"
    with contextlib.suppress(Exception):
        _store().compare_set(_KEY, "", line.encode("utf-8", "replace"))
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        with contextlib.suppress(Exception):
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(exception)


def first_failure() -> str | None:
    """Return what the first process that failed has recorded; None where none has."""
    with contextlib.suppress(Exception):  # its store may be gone with it
        store = _store()
        if store.check([_KEY]):
            text: str = store.get(_KEY).decode("utf-8", "replace")
            return text or None
    return None


class explaining_failures:  # noqa: N801  # used as a function; as a generator it costs twice
    """Say of an error of torch.distributed in a with block which process has failed first.

    Args:
        doing: what is done together.

    Raises:
        GroupError: instead of an error of a collective.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: Any, error: BaseException | None, _traceback: Any) -> None:
        if error is None or isinstance(error, GroupError) or not is_of_a_collective(error):
            return
        first = first_failure()
        what = f"{first} has failed first" if first else "another process has ended, or is stuck"
        raise GroupError(
            f"{self._doing} with the other processes failed: {what}. This one ends too"
        ) from error


_SIGNS = ("gloo", "nccl", "connection closed", "connection reset")


def is_of_a_collective(error: BaseException) -> bool:
    """Return whether an error says that another process did not take part in a collective."""
    if isinstance(error, dist.DistBackendError | dist.DistNetworkError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()
