"""Training on many devices and machines, started by torchrun."""

from ttl_distributed.ddp import Ddp
from ttl_distributed.fsdp import Fsdp

__all__ = ["Ddp", "Fsdp"]
