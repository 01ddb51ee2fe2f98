"""The component `fast-optimizer`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator, Set
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter

from ttl_core import LoopComponent, hookimpl, optimizer_parameters

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)
_Group = dict[str, Any]  # of parameters, with settings

_FLAGS = {
    "fused": {"fused": True, "foreach": False},
    "foreach": {"fused": False, "foreach": True},
}
"""The flags of a parameter group for each implementation."""

# For each operation foreach goes through all tensors, which pays off on a CPU until they no longer
# fit into its cache. Measured: 0.7 of the time at 2**11 elements, 1.0 at 2**14, 1.6 at 2**16.
_MAX_MEAN_SIZE = 2**13
_SLOW_FOREACH = (torch.optim.ASGD,)  # on a CPU, at any size


class FastOptimizer(LoopComponent):
    """The fastest implementation that torch has of the steps of `loop.optimizers`.

    For each parameter group that is the fused one, where torch has it for the device and the types
    of the parameters; else foreach, on a CPU for small tensors only, where it is faster; else the
    one that the group has. It applies to steps in on_optim_step. What was chosen is logged, in one
    line.

    The flags of a group differ from those it was created with during backward passes and steps
    only. So states are the same as without this component, and fit loops without it.

    Attributes:
        choices: what was chosen, for each of `loop.optimizers`.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), FastOptimizer()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.components["fast-optimizer"].choices
        ['SGD: fused']
    """

    def __init__(self) -> None:
        self.choices: list[str] = []
        self._plans: list[_Plan] = []
        self._sparse: set[int] = set()  # ids of parameters with sparse gradients

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Leave optimizers as they were created."""
        try:
            return (yield)
        finally:
            self._discard_plans()
            self._sparse = set()

    # Outermost: a component that scales losses (for fp16) looks in its own wrapper whether an
    # optimizer is fused, and if so leaves it to the optimizer to skip the step on an overflow.
    @hookimpl(wrapper=True, tryfirst=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Show other components the flags with which optimizers will step."""
        plans = self._current_plans(loop)
        for plan in plans:
            plan.apply()
        try:
            return (yield)
        finally:
            for plan in plans:
                # a step that may have to be skipped stays fused, even if this component is disabled
                if getattr(plan.optimizer, "found_inf", None) is None:
                    plan.restore()

    @hookimpl(wrapper=True, tryfirst=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Let optimizers step as chosen."""
        plans = self._current_plans(loop)
        if not all(plan.has_stepped for plan in plans):
            plans = self._plans_for_gradients(loop)
        for plan in plans:
            plan.apply()
            plan.start_momentum()
        try:
            return (yield)
        finally:
            for plan in plans:
                plan.restore()

    def _current_plans(self, loop: TrainTestLoop) -> list[_Plan]:
        """Return a plan for each optimizer: new ones if optimizers were changed or loaded."""
        optimizers, plans = loop.optimizers, self._plans
        if len(optimizers) == len(plans) and all(map(_Plan.fits, plans, optimizers)):
            return plans
        self._discard_plans()
        for module in loop.model.modules():
            if getattr(module, "sparse", False):  # torch.nn.Embedding and EmbeddingBag have it
                self._sparse.update(map(id, module.parameters(recurse=False)))
        self._plans = [_Plan(optimizer, self._sparse) for optimizer in optimizers]
        choices = [plan.choice for plan in self._plans]
        if choices != self.choices:
            self.choices = choices
            _log.warning("fast-optimizer: %s", "; ".join(choices))
        return self._plans

    def _plans_for_gradients(self, loop: TrainTestLoop) -> list[_Plan]:
        """Return plans for the gradients of a first step, of which some may be sparse."""
        sparse = {
            id(parameter)
            for parameter in optimizer_parameters(loop)
            if parameter.grad is not None and parameter.grad.is_sparse
        }
        if not sparse <= self._sparse:
            self._sparse |= sparse
            self._discard_plans()
        plans = self._current_plans(loop)
        for plan in plans:
            plan.has_stepped = True
        return plans

    def _discard_plans(self) -> None:
        for plan in self._plans:
            plan.discard()
        self._plans = []


class _Plan:
    """The flags with which the groups of an optimizer step.

    Args:
        optimizer: the optimizer.
        sparse: the ids of parameters with sparse gradients.

    Attributes:
        optimizer: the optimizer.
        choice: the implementations that were chosen, as text.
        has_stepped: whether the optimizer has made a step with these flags.
    """

    def __init__(self, optimizer: Optimizer, sparse: Set[int]) -> None:
        self.optimizer = optimizer
        self.has_stepped = False
        self._is_applied = False
        self._made_for = _key(optimizer)
        self._groups: object = optimizer.param_groups
        self._flags: list[tuple[_Group, _Group]] = []  # groups, and what they are updated with
        self._own_flags: list[tuple[_Group, _Group]] = []
        chosen = [_choose(optimizer, group, sparse) for group in optimizer.param_groups]
        for name, group in zip(chosen, optimizer.param_groups, strict=True):
            flags = {key: flag for key, flag in _FLAGS.get(name, {}).items() if key in group}
            self._flags.append((group, flags))
            self._own_flags.append((group, {key: group[key] for key in flags}))
        self._switched_to_fused = [
            group
            for name, group in zip(chosen, optimizer.param_groups, strict=True)
            if name == "fused" and not group["fused"] and not group.get("capturable")
        ]
        self._without_momentum = [
            parameter
            for name, group in zip(chosen, optimizer.param_groups, strict=True)
            if name == "fused" and isinstance(optimizer, torch.optim.SGD) and group["momentum"]
            for parameter in group["params"]
        ]
        self._place_steps(fused=True)
        self._handle = optimizer.register_step_pre_hook(self._withdraw)
        if len(set(chosen)) > 1:
            chosen = [f"{name} (group {i})" for i, name in enumerate(chosen)]
        self.choice = f"{type(optimizer).__name__}: {', '.join(dict.fromkeys(chosen))}"

    def fits(self, optimizer: Optimizer) -> bool:
        """Return whether this is the plan of an optimizer and its current groups."""
        # load_state_dict() replaces the list of groups, and add_param_group() extends it
        is_same = optimizer is self.optimizer and optimizer.param_groups is self._groups
        return is_same and _key(optimizer) == self._made_for

    def apply(self) -> None:
        self._is_applied = True
        for group, flags in self._flags:
            group.update(flags)

    def start_momentum(self) -> None:
        """Begin with a momentum of 0 where a parameter has its first gradient later than others.

        As one that was frozen: the fused step of torch fails where some have a momentum and some
        have none.
        """
        state = self.optimizer.state
        waiting = []  # for a first gradient
        for parameter in self._without_momentum:
            if parameter.grad is None:
                waiting.append(parameter)
            elif state[parameter].get("momentum_buffer") is None:
                state[parameter]["momentum_buffer"] = torch.zeros_like(
                    parameter, memory_format=torch.preserve_format
                )
        self._without_momentum = waiting

    def restore(self) -> None:
        self._is_applied = False
        for group, flags in self._own_flags:
            group.update(flags)

    def discard(self) -> None:
        """Leave the optimizer as it would be without this plan."""
        self._handle.remove()
        self.restore()
        self._withdraw()

    def _withdraw(self, *_: object) -> None:
        """Let the numbers of steps be where they were, as a step begins that is not as chosen.

        That is the case when the component was disabled, which no hook tells it. The handle stays:
        a hook of an optimizer cannot be removed by one that is being called.
        """
        if not self._is_applied and self._groups is not None:
            self._groups = None  # no optimizer fits any more
            self._place_steps(fused=False)

    def _place_steps(self, *, fused: bool) -> None:
        """Move the numbers of steps to where an implementation expects them.

        Fused ones count in single precision on the device of the parameter; all others count on
        the CPU, as they would wait for the device to read them.
        """
        is_double = torch.get_default_dtype() is torch.float64 and not fused
        dtype = torch.float64 if is_double else torch.float32
        for group in self._switched_to_fused:
            for parameter in group["params"]:
                state = self.optimizer.state.get(parameter, {})
                if isinstance(state.get("step"), torch.Tensor):
                    device = parameter.device if fused else "cpu"
                    state["step"] = state["step"].to(device, dtype)


def _key(optimizer: Optimizer) -> tuple[object, ...]:
    """Return what a plan depends on, as far as it changes: a model may be moved in mid-run."""
    groups = optimizer.param_groups
    first = groups[0]["params"][0] if groups[0]["params"] else None
    return len(groups), getattr(first, "device", None), getattr(first, "dtype", None)


def _choose(optimizer: Optimizer, group: _Group, sparse: Set[int]) -> str:
    """Return the name of the implementation that suits a parameter group."""
    parameters = group["params"]
    if not parameters or not all(type(one) in (Parameter, torch.Tensor) for one in parameters):
        return "unchanged"  # subclasses, such as distributed tensors, may have neither
    if not sparse.isdisjoint(map(id, parameters)):
        return "unchanged"  # fused steps refuse sparse gradients, and foreach ones loop over them
    is_damped = isinstance(optimizer, torch.optim.SGD) and group["momentum"] and group["dampening"]
    # a first gradient is not damped, which torch knows in a step of all parameters only
    if _is_available("fused", optimizer, group) and (group["fused"] or not is_damped):
        return "fused"
    mean_size = sum(one.numel() for one in parameters) / len(parameters)
    is_slow = mean_size > _MAX_MEAN_SIZE or isinstance(optimizer, _SLOW_FOREACH)
    if is_slow and any(one.is_cpu for one in parameters):
        return "unchanged"
    return "foreach" if _is_available("foreach", optimizer, group) else "unchanged"


def _is_available(name: str, optimizer: Optimizer, group: _Group) -> bool:
    """Return whether torch has an implementation for a group: whether it steps a small copy."""
    cls = next(cls for cls in type(optimizer).__mro__ if "step" in vars(cls))
    if name not in group or not cls.__module__.startswith("torch.optim."):
        return False  # in another package the flag may mean something else
    known = inspect.signature(cls).parameters.keys() - {"params"}
    settings = {key: value for key, value in (group | _FLAGS[name]).items() if key in known}
    kinds = {(parameter.device, parameter.dtype) for parameter in group["params"]}
    copies = [torch.zeros(1, device=d, dtype=t, requires_grad=True) for d, t in kinds]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    try:
        cls(copies, **settings).step()
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True
