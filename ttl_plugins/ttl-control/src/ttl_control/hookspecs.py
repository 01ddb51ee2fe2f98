"""The callback point that `rollback` provides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ttl_core import hookspec

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class RollbackPoints:
    """The callback point that `rollback` provides."""

    @hookspec
    def rollback_rates_lowered(self, loop: TrainTestLoop, factor: float) -> object:
        """Multiply the learning rates that a component itself holds by a factor.

        Fires before the first batch after the run has gone back, where `lr_factor` has lowered the
        rates of `loop.optimizers` and `loop.scheduler`. Those of a component are to be part of its
        state, which is then that of the step to which the run has gone back.

        Args:
            loop: the loop.
            factor: what the other rates were multiplied by.
        """
        return None
