"""The component `activation-offload`."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class ActivationOffload(LoopComponent):
    """Activations that wait for the backward pass in the memory of the CPU.

    Around the forward pass and the loss of training batches, what autograd saves is copied to the
    CPU, pinned where there is a CUDA device, and back when it is needed. Parameters and small
    tensors stay where they are. At the end of each training epoch the largest size of what was
    offloaded in a batch is logged as "offloaded-mib".

    Args:
        min_size: the number of elements from which on a tensor is offloaded.

    Raises:
        ArgumentError: `min_size` is no whole number from 0.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                      [Step(), ActivationOffload(min_size=0)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.metrics["train/offloaded-mib"] > 0
        True
    """

    def __init__(self, *, min_size: int = 1024) -> None:
        self.min_size = whole_number("min_size", min_size)
        self._parameters: set[int] = set()  # the storages of those of this epoch's model
        self._size = self._largest = 0  # of this batch and of the largest one, in bytes

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """List what stays on the device."""
        outer = self._size, self._largest
        if loop.is_training:
            self._size = self._largest = 0
        try:
            return (yield)
        finally:
            if not loop.is_training:
                self._size, self._largest = outer

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Begin to count."""
        if loop.is_training:
            # each batch: a model may be moved, or get another parameter
            self._parameters = {p.data_ptr() for p in loop.model.parameters()}
            self._size = 0

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Offload what the forward pass saves."""
        return (yield from self._offloading(loop))

    @hookimpl(wrapper=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Offload what the loss saves."""
        return (yield from self._offloading(loop))

    def _offloading(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        if not loop.is_training:
            return (yield)
        with saved_tensors_hooks(self._pack, _unpack):
            return (yield)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Note the size of what was offloaded."""
        if loop.is_training:
            self._largest = max(self._largest, self._size)

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the largest size of a batch."""
        if loop.is_training:
            loop.log({"offloaded-mib": self._largest / 2**20}, level="epoch")

    def state_dict(self) -> dict[str, int]:
        """Return the largest size so far in this epoch."""
        return {"largest": self._largest}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue an epoch.

        Args:
            state: what `state_dict` returned.
        """
        self._largest = state["largest"]

    # What torch.autograd.graph.save_on_cpu does, but for all tensors.

    def _pack(self, tensor: torch.Tensor) -> Any:
        is_small = tensor.numel() < self.min_size
        if is_small or tensor.data_ptr() in self._parameters or tensor.is_sparse:
            return tensor
        self._size += tensor.numel() * tensor.element_size()
        if tensor.is_cpu:
            return tensor
        pinned = torch.empty(
            tensor.size(), dtype=tensor.dtype, layout=tensor.layout, pin_memory=tensor.is_cuda
        )
        return tensor.device, pinned.copy_(tensor, non_blocking=tensor.is_cuda)


def _unpack(packed: Any) -> torch.Tensor:
    if isinstance(packed, torch.Tensor):
        return packed
    device, tensor = packed
    moved: torch.Tensor = tensor.to(device, non_blocking=True)
    return moved
