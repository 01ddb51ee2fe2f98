"""Supervised steps for ttl: forward, loss, backward, optimizer and scheduler."""

from ttl_supervised.supervised import Supervised

__all__ = ["Supervised"]
