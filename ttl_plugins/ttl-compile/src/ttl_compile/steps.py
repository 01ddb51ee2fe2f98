"""Optimizer steps, compiled."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.optim import Optimizer

from ttl_compile.calls import Options, compiled_function


class CompiledStep:
    """The compiled step of an optimizer.

    Hooks of the optimizer are called around it, and are not compiled.

    Args:
        optimizer: the optimizer.
        options: the options of torch.compile.

    Attributes:
        optimizer: the optimizer.
    """

    def __init__(self, optimizer: Optimizer, options: Options) -> None:
        self.optimizer = optimizer
        own = type(optimizer).step
        # below Optimizer.profile_hook_step(), which calls the hooks
        inner = getattr(own, "__wrapped__", own) if getattr(own, "hooked", False) else own
        # torch's own steps cannot be one graph: they break it to set the grad mode
        self._compiled = compiled_function(inner, {**options, "fullgraph": False})
        self._step = Optimizer.profile_hook_step(self._step_with_tensors)
        self._rates: dict[int, torch.Tensor] = {}

    def install(self) -> None:
        """Let `optimizer.step()` make compiled steps, until `remove`."""
        optimizer = self.optimizer
        self._previous = vars(optimizer).get("step")

        @functools.wraps(optimizer.step)  # with the mark of a scheduler that has wrapped it
        def step(closure: Any = None) -> Any:
            optimizer._opt_called = True  # type: ignore[attr-defined] # as that wrapper notes it
            if closure is not None:
                return (self._previous or type(optimizer).step.__get__(optimizer))(closure)
            return self._step(optimizer)

        optimizer.step = step  # type: ignore[method-assign]

    def remove(self) -> None:
        """Let `optimizer.step()` be what it was."""
        if self._previous is None:
            del self.optimizer.step
        else:
            self.optimizer.step = self._previous  # type: ignore[method-assign]

    def _step_with_tensors(self, optimizer: Optimizer) -> Any:
        """Step with learning rates as tensors: for each new number torch would compile again."""
        own_rates = [(group, group["lr"]) for group in optimizer.param_groups if "lr" in group]
        for i, (group, rate) in enumerate(own_rates):
            if isinstance(rate, float):
                is_double = any(p.dtype is torch.float64 for p in group["params"])
                dtype = torch.float64 if is_double else torch.float32
                tensor = self._rates.setdefault(i, torch.tensor(rate, dtype=dtype))
                group["lr"] = tensor.fill_(rate)
        try:
            return self._compiled(optimizer)
        finally:
            for group, rate in own_rates:
                group["lr"] = rate
