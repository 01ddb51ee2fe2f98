"""A check that the state of a component belongs to one run at a time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator

from ttl_core.arguments import user_stacklevel
from ttl_core.hooks.member import Member
from ttl_core.state.protocol import has_state

_in_training: set[int] = set()
"""The components with a state of all train() calls under way, by id."""


@contextlib.contextmanager
def training_with(members: Iterable[Member]) -> Iterator[None]:
    """Warn of components with a state with which another loop is training, in a with block.

    Loops may have a component in common, and train with it one after the other.

    Args:
        members: the members of the list of the loop that trains in the block.
    """
    own = {id(m.component): m for m in members if m.is_active and has_state(m.component)}
    shared = own.keys() & _in_training
    for key in shared:
        warnings.warn(
            f"{own[key]} is in the list of another loop too, which is training at this moment: "
            "both change its one state. Give each loop a component of its own",
            UserWarning,
            stacklevel=user_stacklevel(),
        )
    added = own.keys() - shared
    _in_training.update(added)
    try:
        yield
    finally:
        _in_training.difference_update(added)
