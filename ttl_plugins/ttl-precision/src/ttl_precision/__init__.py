"""Automatic mixed precision for ttl: bf16, and fp16 with loss scaling."""

from ttl_precision.amp import Amp

__all__ = ["Amp"]
