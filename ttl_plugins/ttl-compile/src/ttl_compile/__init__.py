"""torch.compile for ttl: model, loss and optimizer step, in place."""

from ttl_compile.compile import Compile

__all__ = ["Compile"]
