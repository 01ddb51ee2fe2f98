"""The component `channels-last`."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, hookimpl, map_nested

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_logger = logging.getLogger(__name__)


class ChannelsLast(LoopComponent):
    """Convolutions with their channels last in memory, which is faster on many devices.

    In each epoch the weights and the tensors of batches that have four dimensions have the memory
    format `torch.channels_last`. Shapes and values stay. At the end of the run the model has the
    contiguous format again. How many weights it changed is logged in one line.

    Attributes:
        n_changed: the number of parameters and buffers that it changed last.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> class Show(LoopComponent):
        ...     def on_batch_begin(self, loop):
        ...         print(loop.batch.is_contiguous(memory_format=torch.channels_last))
        >>> loop = TrainTestLoop(torch.nn.Conv2d(3, 4, 3), [ChannelsLast(), Show()],
        ...                      [torch.ones(2, 3, 8, 8)])
        >>> loop.train(n_epochs=1)
        True
    """

    def __init__(self) -> None:
        self.n_changed = 0

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Restore the format of the model at the end of the run."""
        try:
            return (yield)
        finally:
            _convert(loop.model, torch.contiguous_format)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Change the format of the model, which a component may have replaced or loaded."""
        n_changed = _convert(loop.model, torch.channels_last)
        if n_changed:
            self.n_changed = n_changed
            _logger.info("channels-last: %d parameters and buffers", n_changed)
        return (yield)

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Change the format of the images in a batch."""
        loop.batch = map_nested(_channels_last, loop.batch)


def _channels_last(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _convert(model: torch.nn.Module, memory_format: torch.memory_format) -> int:
    """Change the format of the tensors of a model, and return how many were in another one."""
    n_changed = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.dim() == 4 and not tensor.is_contiguous(memory_format=memory_format):
            tensor.data = tensor.data.contiguous(memory_format=memory_format)
            n_changed += 1
    return n_changed
