"""Progress bars for ttl, on rich."""

from ttl_progress.progress import Progress

__all__ = ["Progress"]
