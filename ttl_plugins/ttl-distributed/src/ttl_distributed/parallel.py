"""The model, as its forward pass goes through DistributedDataParallel."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
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


def average_gradients(parameters: Sequence[torch.nn.Parameter], size: int) -> None:
    """Replace gradients by their means over all processes, which have to call this together.

    A process may lack a gradient that others have; one that all lack stays None.

    Args:
        parameters: the parameters that get gradients, the same in all processes, at least one.
        size: the number of processes.
    """
    n_there = torch.tensor([int(each.grad is not None) for each in parameters])  # waits for no GPU
    dist.all_reduce(n_there)
    by_type: dict[Any, list[torch.nn.Parameter]] = {}
    for parameter, n in zip(parameters, n_there.tolist(), strict=True):
        if n:
            by_type.setdefault((parameter.device, parameter.dtype), []).append(parameter)
    for several in by_type.values():
        for parameter in several:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad.to_dense() for parameter in several]  # type: ignore[union-attr]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat.div_(size), [gradient.numel() for gradient in gradients])
        for parameter, part in zip(several, parts, strict=True):
            parameter.grad = part.view(parameter.shape)
