"""A check that the state of a component belongs to one run at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from ttl_core.arguments import user_stacklevel
from ttl_core.hooks.member import Member
from ttl_core.state.protocol import has_state

_in_training: set[int] = set()
"""The components with a state of all train() calls under way, by id."""


class TrainingComponents:
    """The components of a train() call, inside a with block.

    It warns of those with a state with which another loop is training meanwhile. Loops may have a
    component in common, and train with it one after the other.

    It is a class, as `contextlib.contextmanager` sets an attribute of an exception that passes,
    which not every exception allows.

    Args:
        members: the members of the list of the loop.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        self._own = {id(m.component): m for m in members if m.is_active and has_state(m.component)}

    def __enter__(self) -> None:
        shared = self._own.keys() & _in_training
        for key in shared:
            warnings.warn(
                f"{self._own[key]} is in the list of another loop too, which is training at this "
                "moment: both change its one state. Give each loop a component of its own",
                UserWarning,
                stacklevel=user_stacklevel(),
            )
            del self._own[key]
        _in_training.update(self._own)

    def __exit__(self, *_: object) -> None:
        _in_training.difference_update(self._own)
