"""The base class of what the kit puts into a loop to look at it."""

from __future__ import annotations

from ttl_core.components.component import LoopComponent


class Observer(LoopComponent):
    """A component that is no part of what a loop does."""

    def fork(self) -> None:
        """Leave it out of forks of the loop."""
