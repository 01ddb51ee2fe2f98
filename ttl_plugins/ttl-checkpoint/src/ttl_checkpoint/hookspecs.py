"""The callback point that `checkpoint` provides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ttl_core import hookspec

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class CheckpointPoints:
    """The callback points that `checkpoint` provides."""

    @hookspec
    def checkpoint_saved(self, loop: TrainTestLoop, path: Path) -> object:
        """Handle a checkpoint that is permanently on disk. Fires at safe points, and at the end.

        An implementation that cannot tell yet whether the run is healthy may create an empty file
        `unproven` in the directory, and remove it later: resuming prefers checkpoints without one,
        and the newest of those is kept.

        Args:
            loop: the loop.
            path: the directory of the checkpoint.
        """
        return None
