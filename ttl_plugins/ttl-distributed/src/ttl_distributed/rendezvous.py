"""The store through which the processes of one start find one another."""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Iterator

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ttl_distributed.environment import Place

_SECONDS = 0.01  # between two looks


def store_of_start(place: Place, timeout: float) -> Store:
    """Return a store that the processes of this start of the group share, and no earlier ones.

    torchrun keeps one store for all its restarts. What a process that has ended has left in it,
    such as the address at which it listened, would be taken for that of the one that replaces
    it, which then waits for an answer for ever.

    Args:
        place: the place of this process.
        timeout: how many seconds to wait for the other processes.

    Raises:
        RuntimeError: the store, or another process, cannot be reached.
    """
    seconds = datetime.timedelta(seconds=timeout)
    found = next(rendezvous("env://", place.rank, place.size, timeout=seconds))
    store: Store = found[0]
    store.set_timeout(seconds)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # it was made for this start
        return store
    if place.rank == 0:
        return PrefixStore(_invite(store, place.size, timeout), store)
    return PrefixStore(_join(store, place.rank, timeout), store)


# The number of restarts would not do for a name: hosts may count differently, as one that only
# restarts because another one has does not count it. So the main process invents a name, and
# tells it to each process that asks. As all processes of an earlier start have ended, or are about
# to, the newest process that asks for a rank is the one of this start.


def _join(store: Store, rank: int, timeout: float) -> str:
    """Ask for the name of this start, and say that it has come."""
    request = uuid.uuid4().hex
    store.set(_request_key(rank), request)
    for _ in _looks("the main process", timeout):
        if store.check([_answer_key(request)]):
            break
    name: str = store.get(_answer_key(request)).decode()
    store.set(_arrival_key(name, rank), "")
    return name


def _invite(store: Store, size: int, timeout: float) -> str:
    """Invent a name of this start, and tell it to the other processes until all have it."""
    name = f"ttl/{uuid.uuid4().hex}"
    for rank in range(1, size):
        for _ in _looks(f"rank {rank}", timeout):
            if store.check([_arrival_key(name, rank)]):
                break
            if store.check([_request_key(rank)]):  # it may be that of a process that has ended
                store.set(_answer_key(store.get(_request_key(rank)).decode()), name)
    return name


def _looks(who: str, timeout: float) -> Iterator[None]:
    """Look again and again; not by waiting in the store, where no handler of a signal is called."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        yield
        time.sleep(_SECONDS)
    raise RuntimeError(f"{who} has not come")


def _request_key(rank: int) -> str:
    return f"ttl/request/{rank}"


def _answer_key(request: str) -> str:
    return f"ttl/answer/{request}"


def _arrival_key(name: str, rank: int) -> str:
    return f"{name}/arrival/{rank}"
