"""The model, as its forward pass goes through DistributedDataParallel."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ttl_distributed.base import Calls

_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
NO_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"
"""The option of DDP by which it does not broadcast buffers, in this version of torch."""


class Parallel(DistributedDataParallel):
    """A model whose gradients are averaged over processes, with the attributes of the model.

    Attributes:
        calls: how often its forward pass was computed.
        trained: the parameters that get gradients.
    """

    calls = Calls()
    trained: list[torch.nn.Parameter]

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the forward pass of the model."""
        self.calls.n += 1
        return super().forward(*inputs, **kwargs)  # type: ignore[no-untyped-call]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def nothing(self) -> torch.Tensor:
        """Return a loss whose gradient is 0 for each parameter that is trained."""
        sums = [p.sum() for p in self.module.parameters() if p.requires_grad]
        return torch.stack([each.float() for each in sums]).sum() * 0


def trained_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters of a model that get gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
