"""Progress bars and a summary of the model for ttl, on rich."""

from ttl_progress.progress import Progress
from ttl_progress.summary import Summary

__all__ = ["Progress", "Summary"]
