"""The errors that checkpoints on disk can cause."""

from __future__ import annotations

from ttl_core import TTLError


class CheckpointError(TTLError, OSError):
    """A checkpoint that cannot be written or read."""


class CorruptError(CheckpointError):
    """A checkpoint whose files differ from what was written."""


def os_reason(error: OSError) -> str:
    """Return the system's own words for an error, without number and path."""
    return error.strerror or str(error)
