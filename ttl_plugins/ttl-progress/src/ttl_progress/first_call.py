"""What the first call of a model tells about its layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle


class FirstCall:
    """Hooks on the modules of a model, which record its next call and are then removed.

    Nothing that the model computes is changed by them.

    Args:
        model: the model.
        count_flops: whether to count floating-point operations.
        on_end: is called when the call has ended.

    Attributes:
        shapes: the shape of the output by module, of its last call; None where there is no tensor.
        output_bytes: the memory of the outputs of all modules without children, in bytes.
        flops: the floating-point operations by module, with those of the modules inside it; empty
            if they were not counted.
    """

    def __init__(
        self, model: torch.nn.Module, *, count_flops: bool, on_end: Callable[[], object]
    ) -> None:
        self.shapes: dict[torch.nn.Module, tuple[int, ...] | None] = {}
        self.output_bytes = 0
        self.flops: dict[torch.nn.Module, int] = defaultdict(int)
        self._on_end = on_end
        self._counter = FlopCounterMode(display=False) if count_flops else None
        self._handles: list[RemovableHandle] = []
        if is_compiled(model):  # a hook would be compiled into it
            return
        self._handles.append(model.register_forward_pre_hook(self._begin))
        for module in model.modules():
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave))
        # also where the call fails
        self._handles.append(model.register_forward_hook(self._end, always_call=True))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, model: torch.nn.Module, inputs: Any) -> None:
        if self._counter is not None:
            self._counter.__enter__()  # type: ignore[no-untyped-call]

    def _enter(self, module: torch.nn.Module, inputs: Any) -> None:
        if self._counter is not None:
            self.flops[module] -= self._counter.get_total_flops()

    def _leave(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if self._counter is not None:
            self.flops[module] += self._counter.get_total_flops()
        tensors = list(_tensors(output))
        self.shapes[module] = tuple(tensors[0].shape) if tensors else None
        if not any(True for _ in module.children()):
            self.output_bytes += sum(t.numel() * t.element_size() for t in tensors)

    def _end(self, model: torch.nn.Module, inputs: Any, output: Any) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.remove()
        if model in self.shapes:  # else it has failed
            self._on_end()


def is_compiled(model: torch.nn.Module) -> bool:
    """Return whether a model, or a part of it, is compiled."""
    return any(module._compiled_call_impl is not None for module in model.modules())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
