"""The callback points that `my-component` provides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ttl_core import hookspec

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class MyComponentPoints:
    """Callback points, whose names begin with that of the component."""

    @hookspec
    def my_component_due(self, loop: TrainTestLoop, step: int) -> object:
        """Do what is due every so many steps. Fires in on_batch_end of training batches.

        Args:
            loop: the loop.
            step: the number of optimization steps so far.
        """
        return None
