"""The callback points that `checkpoint` provides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ttl_core import hookspec

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class CheckpointPoints:
    """The callback points that `checkpoint` provides."""

    @hookspec
    def checkpoint_is_unproven(self, loop: TrainTestLoop) -> object:
        """Return True where the checkpoint that is about to be written gets a file `unproven`.

        Fires at safe points, and at the end, before the checkpoint is written. The file is in it
        when it appears, so that also a run that is killed then leaves it marked. An implementation
        removes it when the run has turned out to be healthy.

        Args:
            loop: the loop.
        """
        return None

    @hookspec
    def checkpoint_saved(self, loop: TrainTestLoop, path: Path) -> object:
        """Handle a checkpoint that is permanently on disk. Fires at safe points, and at the end.

        An implementation that cannot tell yet whether the run is healthy may create an empty file
        `unproven` in the directory, and remove it later: resuming prefers checkpoints without one,
        and the newest of those is kept. One that is to be there from the beginning is created where
        `checkpoint_is_unproven` returns True.

        Args:
            loop: the loop.
            path: the directory of the checkpoint.
        """
        return None
