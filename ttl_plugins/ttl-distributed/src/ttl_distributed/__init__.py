"""Training on many devices and machines, started by torchrun."""

from ttl_distributed.ddp import Ddp

__all__ = ["Ddp"]
