"""How the parameters of a model are shared out to processes, by torch's fully_shard."""

from __future__ import annotations

import inspect
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
)

from ttl_core import ArgumentError, is_sharded
from ttl_core.arguments import did_you_mean
from ttl_distributed.group import ProcessGroup

Layers = Callable[[torch.nn.Module], bool] | Sequence[str] | int | None
"""Which modules are gathered on their own: see `Fsdp`."""


def make_mesh(group: ProcessGroup, shape: tuple[int, int] | None) -> DeviceMesh:
    """Return how processes are arranged: all in a row, or in replicas of the model.

    Args:
        group: the processes.
        shape: how many replicas there are, and how many processes share each; None for one.

    Raises:
        ArgumentError: that is another number of processes than there are.
    """
    if shape is None:
        return init_device_mesh(group.device.type, (group.size,))
    n_replicas, n_shards = shape
    if n_replicas * n_shards != group.size:
        raise ArgumentError(
            f"fsdp: mesh_shape is {shape}, which is for {n_replicas * n_shards} processes, but "
            f"there are {group.size}. Give a shape of {group.size}, or start torchrun with "
            f"{n_replicas * n_shards}"
        )
    return init_device_mesh(group.device.type, shape, mesh_dim_names=("replicate", "shard"))


_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def policies(
    mixed_precision: str | MixedPrecisionPolicy | None, cpu_offload: bool
) -> dict[str, Any]:
    """Return the options of fully_shard for precision and for where parameters are kept.

    Args:
        mixed_precision: the type in which layers compute, a policy, or None.
        cpu_offload: whether parameters are kept on the CPU.
    """
    options: dict[str, Any] = {}
    if isinstance(mixed_precision, str):
        dtype = _DTYPES[mixed_precision]
        options["mp_policy"] = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)
    elif mixed_precision is not None:
        options["mp_policy"] = mixed_precision
    if cpu_offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.accelerator.is_available())
    return options


def shard(model: torch.nn.Module, layers: Layers, **options: Any) -> None:
    """Let each process keep a part of each parameter, in place.

    Args:
        model: the model.
        layers: which of its modules are gathered on their own; the rest is as a whole.
        **options: those of fully_shard.

    Raises:
        ArgumentError: `layers` chooses none, or the model has no forward pass.
    """
    if type(model).forward is torch.nn.Module.forward:
        raise ArgumentError(
            f"fsdp: the model is a {type(model).__name__}, which has no forward pass in which its "
            "parameters could be gathered. Give a module that calls those in it, or train with ddp"
        )
    for module in chosen_layers(model, layers):
        fully_shard(module, **options)
    fully_shard(model, **options)


def chosen_layers(model: torch.nn.Module, layers: Layers) -> list[torch.nn.Module]:
    """Return the modules of a model that are chosen, inner ones before those around them.

    Args:
        model: the model, which is itself not among them.
        layers: which.

    Raises:
        ArgumentError: none is.

    Example:
        >>> from torch.nn import Linear, Sequential
        >>> model = Sequential(Sequential(Linear(9, 9), Linear(9, 9)), Linear(9, 1))
        >>> chosen_layers(model, ["Linear"]) == [model[1], model[0][1], model[0][0]]
        True
        >>> chosen_layers(model, 100) == [model[0]]
        True
    """
    inner = [module for module in model.modules() if module is not model][::-1]
    inner = _without_ties(inner, model)
    if layers is None:
        return []
    if isinstance(layers, int):
        return list(_large(inner, layers))  # a model that is smaller than that is one layer
    if callable(layers):
        chosen = [module for module in inner if layers(module)]
        what = "chooses no module of the model"
    else:
        there = {cls.__name__ for module in inner for cls in type(module).__mro__}
        missing = [name for name in layers if name not in there]
        chosen = [m for m in inner if {cls.__name__ for cls in type(m).__mro__} & {*layers}]
        what = f"has {missing[0]!r}, of which class the model has no module" if missing else ""
        chosen = [] if missing else chosen
    if not chosen:
        classes = sorted({type(module).__name__ for module in inner})
        hint = "" if callable(layers) else did_you_mean(missing[0], classes)
        raise ArgumentError(
            f"fsdp: layers {what}. {hint}Classes of its modules are: {', '.join(classes)}"
        )
    return chosen


def _without_ties(modules: Sequence[torch.nn.Module], model: torch.nn.Module) -> list[Any]:
    """Return those modules that have no parameter in common with one outside of them.

    What they have in common, as tied weights, has to be gathered for both at once.
    """
    holders = Counter(key for module in model.modules() for key in _own_keys(module))
    shared = {key for key, n in holders.items() if n > 1}

    def is_apart(module: torch.nn.Module) -> bool:
        inside = Counter(key for each in module.modules() for key in _own_keys(each))
        return all(inside[key] in (0, holders[key]) for key in shared)

    return [module for module in modules if is_apart(module)] if shared else [*modules]


def _own_keys(module: torch.nn.Module) -> list[int]:
    """Return what identifies the parameters of a module itself; None stands for a missing bias."""
    return [id(p) for p in module._parameters.values() if p is not None]


def _large(modules: Sequence[torch.nn.Module], size: int) -> Iterator[torch.nn.Module]:
    """Yield modules with at least so many parameters, without those of yielded ones in them."""
    taken: set[int] = set()
    for module in modules:
        own = {id(p): p.numel() for p in module.parameters() if id(p) not in taken}
        # a list of modules has no forward pass at which it could be gathered
        if sum(own.values()) >= size and type(module).forward is not torch.nn.Module.forward:
            taken |= own.keys()
            yield module


class ReplacedParameters:
    """The parameters that a model had before it was sharded.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        # weakly, as they are the whole model, which may be too large for one process
        self._before = {id(p): weakref.ref(p) for p in model.parameters()}

    def check(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Check that no optimizer updates one of them.

        Args:
            optimizers: the optimizers.

        Raises:
            ArgumentError: one does.
        """
        for optimizer in optimizers:
            for group in getattr(optimizer, "param_groups", ()):
                for parameter in group["params"]:
                    reference = self._before.get(id(parameter))
                    if reference is not None and reference() is parameter:
                        cls = type(optimizer).__name__
                        raise ArgumentError(
                            f"fsdp: the optimizer, a {cls}, was made before the model was "
                            "sharded, and has the parameters from before that. Give a factory, "
                            f"which is called with those of loop.model: partial({cls}, lr=...)"
                        )


def check_can_step(optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimizer can step parameters of which each process has a part.

    It is tried with another one of its class, on a parameter of zeros; all processes do that.

    Args:
        optimizer: the optimizer.

    Raises:
        ArgumentError: it cannot.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if not any(map(is_sharded, trained)):
        return
    like = min(trained, key=lambda p: (-p.dim(), p.numel()))  # some take matrices alone
    trial = torch.nn.Parameter(torch.zeros_like(like))
    trial.grad = torch.zeros_like(like)
    cls = type(optimizer)
    try:
        other = cls([trial], **optimizer.defaults)
    except Exception:  # it takes more than its defaults, and is then not tried
        return
    takes = inspect.signature(other.step).parameters.values()
    needs_closure = any(each.default is each.empty for each in takes)
    try:
        other.step(*([lambda: 0.0] if needs_closure else []))
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArgumentError(
            f"fsdp: a {cls.__name__} cannot step parameters of which each process has a part: "
            f"{reason} Use another optimizer, such as AdamW, or train with ddp"
        ) from error


def reshard(model: torch.nn.Module) -> None:
    """Let each module of a model have its part of each parameter only, after forward passes.

    Args:
        model: the model.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def discard_gradients(model: torch.nn.Module) -> None:
    """Discard gradients that were not synchronized; all processes have to call this.

    Args:
        model: the model.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.unshard()  # they belong to the parameters as they are then
            for parameter in module.parameters():
                parameter.grad = None
            module.reshard()
