"""Networks that train in turns for ttl: the steps of GANs and other games."""

from ttl_alternating.alternating import Alternating

__all__ = ["Alternating"]
