"""The processes that train together: one process, unless a component provides more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Group:
    """The processes that train together; this class is a group of one process.

    It is `loop.group`. A component that is written against it works in one process, where its
    methods cost next to nothing, and in several. A component that starts several, such as `ddp`,
    returns a subclass from `join_group`.

    Each of the methods `sum`, `any`, `gather`, `broadcast` and `barrier` has to be called by all
    processes, in the same order: a process waits in it for the others. So none may be called in
    on_exception, or behind a condition that may differ between processes.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
        announced: at a safe point, what processes have announced: the values by name, in the
            order of ranks, the same in all processes.

    Example:
        >>> from ttl_core import Group
        >>> group = Group()
        >>> group.rank, group.size, group.is_main
        (0, 1, True)
        >>> group.sum(3), group.any(False), group.gather("a"), group.broadcast("b")
        (3, False, ['a'], 'b')
    """

    rank: int = 0
    size: int = 1
    announced: Mapping[str, list[Any]] = {}

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints, logs and writes files for all."""
        return self.rank == 0

    def sum(self, value: T) -> T:
        """Return the sum of the values of all processes.

        Args:
            value: a number, or a tensor of the same shape and type in all of them; it is not
                changed.
        """
        return value

    def any(self, flag: bool) -> bool:
        """Return whether the flag of at least one process is set.

        Args:
            flag: the flag of this process.
        """
        return bool(flag)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks.

        Args:
            value: what pickle takes.
        """
        return [value]

    def broadcast(self, value: T) -> T:
        """Return the value of the main process.

        Args:
            value: what pickle takes; that of other processes is not used.
        """
        return value

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def announce(self, name: str, value: Any = None) -> None:
        """Tell all processes something at one safe point, the same for all: one of the next two.

        It may be called at any time in a run, also by a handler of signals, and by one process
        alone. In a group of one it has no effect.

        Args:
            name: what is announced, beginning with the name of the component.
            value: more about it, of types that pickle takes.
        """

    def request_stop(self, cause: T) -> T | None:
        """Ask all processes to stop at the same safe point. The loop calls it in `stop()`.

        Args:
            cause: which component asks, and why.

        Returns:
            The cause by which this process stops at once; None if it continues until then.
        """
        return cause
