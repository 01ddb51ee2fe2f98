"""Callbacks of other libraries as components."""

from ttl_adapters.facade import UnsupportedAccessError
from ttl_adapters.hf_callback import HFCallback
from ttl_adapters.keras_callback import KerasCallback
from ttl_adapters.lightning_callback import LightningCallback

__all__ = ["HFCallback", "KerasCallback", "LightningCallback", "UnsupportedAccessError"]
