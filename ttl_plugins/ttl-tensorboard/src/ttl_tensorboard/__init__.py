"""Logged values for ttl in TensorBoard."""

from ttl_tensorboard.tensorboard import Tensorboard

__all__ = ["Tensorboard"]
