"""Memory for ttl: activations computed again or offloaded, layouts, collection, prefetching."""

from ttl_memory.activation_checkpointing import ActivationCheckpointing
from ttl_memory.activation_offload import ActivationOffload
from ttl_memory.channels_last import ChannelsLast
from ttl_memory.gc_control import GcControl
from ttl_memory.prefetch import Prefetch

__all__ = [
    "ActivationCheckpointing",
    "ActivationOffload",
    "ChannelsLast",
    "GcControl",
    "Prefetch",
]
