"""The lock by which one run at a time, and one component in it, saves into a directory."""

from __future__ import annotations

from pathlib import Path

from ttl_checkpoint.errors import os_reason, warn_once
from ttl_core import RunError, files


class DirectoryLock(files.DirectoryLock):
    """A lock on a directory, of which a second saver is told.

    Args:
        directory: the directory.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._directory = directory

    def acquire(self) -> bool:
        """Take the lock. Where the file system has no locks, it warns, once.

        Raises:
            RunError: another run, or another component of this one, holds it.
            OSError: the lock file cannot be opened.
        """
        if not super().acquire():
            raise RunError(
                f"another run, or another component of this one, saves into {self._directory}. "
                "Give each a directory of its own"
            )
        if self.unsupported is not None:
            try:
                warn_once(
                    f"the file system of {self._directory} has no locks "
                    f"({os_reason(self.unsupported)}), so nothing prevents a second run from "
                    "saving there too. Start one at a time"
                )
            except BaseException:  # warnings can be errors
                self.release()
                raise
        return True
