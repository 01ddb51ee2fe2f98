"""The component `grad-monitor`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import LoopComponent, hookimpl, whole_tensor
from ttl_core.arguments import flag, whole_number
from ttl_monitors.step_hooks import BeforeEachStep

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop


class GradMonitor(LoopComponent):
    """A monitor of the norms of gradients, weights and updates, as optimization steps see them.

    Each so many steps it logs, at batch level, over all parameters that have a gradient:
    "used-grad-norm", the norm of the gradients that the step uses, after unscaling and clipping;
    "weight-norm", that of the weights before the step; and "update-ratio", the norm of the change
    of the weights by that of the weights. They stay tensors, so nothing waits for the device.

    Args:
        every: measure at each so many steps. A step that is measured copies the weights.
        per_layer: whether to log them for each layer too, as "weight-norm/<layer>".

    Raises:
        ArgumentError: `every` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> class Print(LoopComponent):
        ...     def on_log(self, loop, metrics, level):
        ...         if "train/weight-norm" in metrics:
        ...             print(loop.global_step, list(metrics))
        >>> monitor = GradMonitor(every=2)
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), monitor, Print()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        0 ['train/used-grad-norm', 'train/weight-norm', 'train/update-ratio']
        2 ['train/used-grad-norm', 'train/weight-norm', 'train/update-ratio']
    """

    def __init__(self, *, every: int = 50, per_layer: bool = False) -> None:
        self.every = whole_number("every", every, at_least=1)
        self.per_layer = flag("per_layer", per_layer)

    # innermost, as lr-monitor: what others do to gradients at this point has been done
    @hookimpl(wrapper=True, trylast=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Measure a step, if it is due."""
        if loop.global_step % self.every:
            return (yield)
        steps: list[_Step] = []
        names = {id(parameter): name for name, parameter in loop.model.named_parameters()}
        with BeforeEachStep(loop.optimizers, lambda each: steps.append(_Step(each, names))):
            result = yield
        if any(step.parameters for step in steps):
            loop.log(self._values(steps))
        return result

    def _values(self, steps: Sequence[_Step]) -> dict[str, torch.Tensor]:
        """Return what is logged of the steps that optimizers have made."""
        layers = [layer for step in steps for layer in step.layers]
        order = sorted(range(len(layers)), key=layers.__getitem__)  # one layer after the other
        gradients, weights, updates = (
            _on_one_device([norm for norms in each for norm in norms])[order]
            for each in zip(*(step.norms() for step in steps), strict=True)
        )
        size = torch.linalg.vector_norm
        values = {
            "used-grad-norm": size(gradients),
            "weight-norm": size(weights),
            "update-ratio": size(updates) / size(weights),
        }
        if self.per_layer:
            names = sorted(set(layers))
            sizes = [layers.count(name) for name in names]
            of_layers = (
                torch._foreach_norm(torch.split_with_sizes(each, sizes))
                for each in (gradients, weights, updates)
            )
            for name, gradient, weight, update in zip(names, *of_layers, strict=True):
                values[f"used-grad-norm/{name}"] = gradient
                values[f"weight-norm/{name}"] = weight
                values[f"update-ratio/{name}"] = update / weight
        return values


class _Step:
    """The step of one optimizer.

    Args:
        optimizer: the optimizer, right before it steps.
        names: the names of the model's parameters, by id.
    """

    def __init__(self, optimizer: Optimizer, names: dict[int, str]) -> None:
        of_groups = (group["params"] for group in optimizer.param_groups)
        self.parameters: list[torch.Tensor] = [
            parameter for group in of_groups for parameter in group if parameter.grad is not None
        ]
        self.layers = [_layer(names.get(id(each), "others")) for each in self.parameters]
        self._before = [each.detach().clone() for each in self.parameters]
        self._gradients = _norms(_dense(each.grad) for each in self.parameters)

    def norms(self) -> tuple[list[torch.Tensor], ...]:
        """Return the norms of the gradients, the weights and their updates, after the step."""
        after = [parameter.detach() for parameter in self.parameters]
        updates = torch._foreach_sub(after, self._before) if after else []
        return self._gradients, _norms(self._before), _norms(updates)


def _layer(name: str) -> str:
    """Return the name of the module of a parameter; its own name if that is the model."""
    return name.rpartition(".")[0] or name


def _dense(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    gradient = gradient.detach()
    return gradient.coalesce().values() if gradient.is_sparse else gradient


_NARROW = {torch.float32, torch.float16, torch.bfloat16}


def _norms(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the norm of each tensor, in float32 where they are of fewer bits."""
    tensors = list(tensors)
    dtype = torch.float32 if {each.dtype for each in tensors} <= _NARROW else None
    return list(torch._foreach_norm(tensors, 2, dtype)) if tensors else []


def _on_one_device(norms: Sequence[torch.Tensor]) -> torch.Tensor:
    device = norms[0].device
    if len({type(norm) for norm in norms}) > 1:  # a part of them is distributed
        norms = [whole_tensor(norm) for norm in norms]
    return whole_tensor(torch.stack([norm.to(device, non_blocking=True) for norm in norms]))
