"""The group of processes that torch.distributed connects."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ttl_core import Group, RunError
from ttl_distributed.environment import Place
from ttl_distributed.failures import explaining_failures
from ttl_distributed.rendezvous import store_of_start

T = TypeVar("T")
_SECONDS_TO_RELEASE = 0.05
_BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
"""What connects processes by the type of their device; a CPU is reduced on without a device."""


class ProcessGroup(Group):
    """The processes that torch.distributed connects, as `loop.group`.

    Args:
        rank: the number of this process.
        size: the number of processes.
        device: the device of this process.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.has_failed = False
        self.reset()

    def reset(self) -> None:
        """Forget what was announced, and requests to stop."""
        self.announced: dict[str, list[Any]] = {}
        self.agreed_cause: Any = None
        self._announcements: list[tuple[str, Any]] = []
        self._cause: Any = None

    @contextlib.contextmanager
    def of_run(self) -> Iterator[None]:
        """Keep what belongs to a run in a with block apart from that of a run around it.

        There is one around the run of a fork, of which it must lose no announcement.
        """
        outer = self.announced, self.agreed_cause, self._announcements, self._cause
        self.reset()
        try:
            yield
        finally:
            self.announced, self.agreed_cause, self._announcements, self._cause = outer

    # -- together ---------------------------------------------------------------------------

    def sum(self, value: T) -> T:
        """Return the sum of the values of all processes."""
        if isinstance(value, torch.Tensor):
            total = value.detach().clone()
            self._reduce(total)
            return total  # type: ignore[return-value]
        is_whole = isinstance(value, int)
        total = torch.tensor(value, dtype=torch.int64 if is_whole else torch.float64)
        self._reduce(total)
        return total.item()  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Return whether the flag of at least one process is set."""
        return bool(self.sum(int(bool(flag))))

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        values: list[Any] = [None] * self.size
        with explaining_failures("gathering values"):
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Return the value of the main process."""
        values = [value if self.is_main else None]
        with explaining_failures("broadcasting a value"):
            dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self._reduce(torch.zeros(()))

    def broadcast_tensors(self, tensors: list[torch.Tensor]) -> None:
        """Copy tensors of the main process to those of all others.

        Args:
            tensors: the tensors, of the same shapes in all.
        """
        by_type: dict[Any, list[torch.Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        with explaining_failures("broadcasting buffers"), torch.no_grad():
            for several in by_type.values():
                flat = torch.cat([tensor.reshape(-1) for tensor in several])
                dist.broadcast(flat, src=0)
                if not self.is_main:
                    sizes = [tensor.numel() for tensor in several]
                    parts = torch.split(flat, sizes)
                    for tensor, part in zip(several, parts, strict=True):
                        tensor.copy_(part.view_as(tensor))

    def _reduce(self, total: torch.Tensor) -> None:
        with explaining_failures("adding up values"):
            dist.all_reduce(total)

    # -- announcements ----------------------------------------------------------------------

    def announce(self, name: str, value: Any = None) -> None:
        """Tell all processes something at one of the next two safe points."""
        self._announcements.append((name, value))

    def request_stop(self, cause: T) -> T | None:
        """Ask all processes to stop; return the cause where they have agreed on it."""
        if self.agreed_cause is None and self._cause is None:
            self._cause = cause
        return self.agreed_cause  # type: ignore[no-any-return]

    @property
    def has_news(self) -> bool:
        """Whether this process has something to tell the others."""
        return bool(self._announcements) or self._cause is not None

    def exchange(self) -> None:
        """Tell all processes what each has announced, and agree on a request to stop."""
        own, self._announcements = self._announcements, []
        several = self.gather((own, self._cause))
        for announcements, cause in several:
            for name, value in announcements:
                self.announced.setdefault(name, []).append(value)
            if self.agreed_cause is None:
                self.agreed_cause = cause

    # -- its time-out -----------------------------------------------------------------------

    def set_timeout(self, seconds: float) -> None:
        """Set how long a process waits for the others from now on."""
        dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=seconds))


_joined: ProcessGroup | None = None
"""The group that this process has joined: once, as its store keeps addresses of a group."""


def join(place: Place | None, timeout: float) -> ProcessGroup | None:
    """Return the group of this process; None where it trains alone.

    It is that of torch.distributed where a script has initialised that by itself.

    Args:
        place: the place of this process, as torchrun tells it.
        timeout: how many seconds to wait for the other processes.

    Raises:
        RunError: this process has no device of its own, or the group cannot be joined.
    """
    global _joined
    if dist.is_available() and dist.is_initialized():
        size = dist.get_world_size()
        if size > 1 and (_joined is None or (_joined.rank, _joined.size) != _rank_and_size()):
            _joined = ProcessGroup(*_rank_and_size(), _device())
        return _joined if size > 1 else None
    if place is None or place.size == 1:
        return None
    device = _own_device(place)
    # DDP and fully_shard import it. An import behind init_process_group() would keep the group, and
    # the threads of gloo, beyond _leave(). One that releases a tensor while the interpreter ends
    # aborts the process, and torchrun then says that a run has failed which has not.
    import_module("torch._dynamo")
    try:
        dist.init_process_group(
            _BACKENDS.get(device.type, "gloo"),
            store=store_of_start(place, timeout),
            rank=place.rank,
            world_size=place.size,
            timeout=datetime.timedelta(seconds=timeout),
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"ttl-distributed: rank {place.rank} of {place.size} could not join the group within "
            f"{timeout:g} seconds: {error}. All processes have to be started, and to reach the "
            "address MASTER_ADDR"
        ) from error
    _joined = group = ProcessGroup(place.rank, place.size, device)
    atexit.register(_leave, group)
    return group


def _leave(group: ProcessGroup) -> None:
    if not group.has_failed and dist.is_initialized():  # others may wait for one that has failed
        dist.destroy_process_group()
        # A model that is sharded holds the group, and so the threads, until the interpreter ends.
        # Let them release the tensors of the newest collectives before that.
        time.sleep(_SECONDS_TO_RELEASE)


def _rank_and_size() -> tuple[int, int]:
    return dist.get_rank(), dist.get_world_size()


def _device() -> torch.device:
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, torch.accelerator.current_device_index())


def _own_device(place: Place) -> torch.device:
    """Make the device with the number of this process on its machine the current one."""
    if torch.accelerator.is_available():
        n = torch.accelerator.device_count()
        if place.local_rank >= n:
            raise RunError(
                f"ttl-distributed: process {place.local_rank} of this machine has no device of its "
                f"own, as there are {n}. Start torchrun with --nproc-per-node {n}"
            )
        torch.accelerator.set_device_index(place.local_rank)
    return _device()
