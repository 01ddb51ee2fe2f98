"""The model, as its forward pass goes through DistributedDataParallel."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ttl_distributed.step_weights import N_NUMBERS

_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
NO_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"
"""The option of DDP by which it does not broadcast buffers, in this version of torch."""
_CARRIER = "ttl_carrier"


class Pass:
    """A forward pass through DDP.

    Attributes:
        is_averaged: whether DDP averages the gradients of it.
        is_due: whether it still has to, in the next backward pass.
    """

    is_averaged = is_due = False


class Parallel(DistributedDataParallel):
    """A model whose gradients are averaged over processes, with the attributes of the model.

    Args:
        model: the model.
        options: those of DDP.

    Attributes:
        trained: the parameters that get gradients.
        newest: the newest forward pass; an object of its own, as to set attributes of a module
            takes long.
    """

    def __init__(self, model: torch.nn.Module, **options: Any) -> None:
        buffers: Any = {NO_BUFFERS: False}  # they are after each step, for all that reads them
        self.trained = trained_parameters(model)
        carrier = None
        # DDP would take it for unused, as it is no part of the forward pass; and a scripted model
        # gets no more parameters
        if not options["find_unused_parameters"] and not isinstance(model, torch.jit.ScriptModule):
            carrier = _make_carrier(self.trained)
        if carrier is not None:
            model.register_parameter(_CARRIER, carrier)  # while DDP looks for parameters
        try:
            super().__init__(model, **buffers, **options)
        finally:
            if carrier is not None:
                del model._parameters[_CARRIER]
        self._carriers = [carrier]  # in a list, so that it is no parameter of this module
        self.newest = Pass()
        self._has_to_begin = options["static_graph"]  # which torch takes from a synchronized batch

    def take_carrier(self) -> torch.nn.Parameter | None:
        """Return a parameter whose gradient is averaged as well, in the next backward pass.

        It has to get one before, each time. It is None where none is due, and where numbers would
        be inexact, or not there with the backward pass.
        """
        is_due, self.newest.is_due = self.newest.is_due, False
        return self._carriers[0] if is_due else None

    def begin_batch(self, is_stepping: bool) -> None:
        """Prepare for a batch, whose gradients have to be averaged if it makes a step."""
        self.newest.is_averaged = self.newest.is_due = False
        # what its no_sync() sets; averaging before the step changes nothing
        is_averaged = is_stepping or self._has_to_begin
        if is_averaged != self.require_backward_grad_sync:
            self.require_backward_grad_sync = is_averaged

    def begin_empty_pass(self) -> torch.nn.Parameter | None:
        """Expect gradients without a forward pass, and return the carrier, if there is one."""
        carrier = self._carriers[0]
        if carrier is not None:
            self.require_backward_grad_sync = True
            self.reducer.prepare_for_backward([])
        return carrier

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Compute the forward pass of the model."""
        self.newest.is_averaged = self.newest.is_due = self.require_backward_grad_sync
        if self._has_to_begin:
            self._has_to_begin = False
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


def _make_carrier(trained: Sequence[torch.nn.Parameter]) -> torch.nn.Parameter | None:
    """Return a parameter that DDP averages together with others, if it can be read at once."""
    for parameter in trained:
        if parameter.is_cpu and parameter.is_floating_point() and parameter.dtype.itemsize >= 4:
            return torch.nn.Parameter(torch.zeros(N_NUMBERS, dtype=parameter.dtype))
    return None


def trained_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters of a model that get gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def average_gradients(parameters: Sequence[torch.nn.Parameter], size: int) -> None:
    """Replace gradients by their means over all processes, which have to call this together.

    A process may lack a gradient that others have; one that all lack stays None. One that is sparse
    in all that have it stays sparse.

    Args:
        parameters: the parameters that get gradients, the same in all processes, at least one.
        size: the number of processes.
    """
    n_there = torch.tensor([_kind(each.grad) for each in parameters])  # waits for no GPU
    dist.all_reduce(n_there)
    by_type: dict[Any, list[torch.nn.Parameter]] = {}
    for parameter, (n, n_sparse, n_dims) in zip(parameters, n_there.tolist(), strict=True):
        if n and n == n_sparse:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter).to_sparse(n_dims // n)
            dist.all_reduce(parameter.grad)
            parameter.grad.div_(size)
        elif n:
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


def _kind(gradient: torch.Tensor | None) -> tuple[int, int, int]:
    """Return whether there is a gradient, whether it is sparse, and in how many dimensions."""
    if gradient is None:
        return 0, 0, 0
    return 1, int(gradient.is_sparse), gradient.sparse_dim() if gradient.is_sparse else 0
