"""The component `ema`."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import number, user_stacklevel, whole_number
from ttl_optim.averaging_plan import AveragingPlan, is_plain
from ttl_optim.copies import copied, state_like

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Ema(LoopComponent):
    """Exponential moving averages of the weights, with which the model is validated and tested.

    After each optimization step the averages of all parameters and buffers move towards the
    model's. Where an average means nothing it is a copy: of buffers of whole numbers, the unit
    vectors of spectral norm, sparse buffers, and elements that are infinite. For each validation,
    test or prediction epoch the averages are copied into the model, and the model's own values are
    restored when the epoch ends, however it ends. Parameters stay the same objects throughout.

    The average is over about 1 / (1 - decay) steps. A run with validation that has fewer than three
    times as many gives a warning, as the first weights count to its end.

    Args:
        decay: the share of the average that stays in each step, from 0 to 1.
        start_step: the optimization step, as `loop.global_step` counts, with which averaging
            begins. Until then there are no averages.

    Attributes:
        averaged: the averages, in a copy of the model as `averaged.module`; None before the first.

    Raises:
        ArgumentError: `decay` is not between 0 and 1, or `start_step` is no whole number from 0.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Ema(decay=0.5)],
        ...                      ComponentConformance.make_data(), ComponentConformance.make_data())
        >>> loop.train(n_epochs=2)
        >>> loop.components["ema"].averaged.n_averaged
        tensor(6)
    """

    averaged: AveragedModel | None

    def __init__(self, decay: float = 0.999, *, start_step: int = 0) -> None:
        if not 0 <= number("decay", decay) <= 1:
            raise ArgumentError(f"decay is {decay!r}, but has to be a number from 0 to 1")
        self.decay = decay
        self.start_step = whole_number("start_step", start_step)
        self.averaged = None
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._averages: dict[str, torch.Tensor] = {}
        self._plan = AveragingPlan({}, set())
        self._loaded: Mapping[str, Any] = {}

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Warn if the first weights count in the averages to the end, once the length is known."""
        result = yield
        n_steps = loop.n_optim_steps
        if loop.valid_data is None or n_steps is None or loop.has_loaded_state:
            return result
        n_steps -= max(self.start_step - loop.global_step, 0)
        share = self.decay ** max(n_steps - 1, 0)  # of the first weights, at the end
        if self.averaged is None and _SMALL_SHARE < share < 1:
            warnings.warn(
                f"'ema' averages over about {1 / (1 - self.decay):.0f} steps with "
                f"decay={self.decay}, but this train() has {n_steps} to average: at its end "
                f"{share:.0%} of the weights with which the model is validated are still those of "
                "the first step. Give it a decay that fits: "
                f"use('ema', decay={_fitting_decay(n_steps)})",
                UserWarning,
                stacklevel=user_stacklevel(),
            )
        return result

    @hookimpl(trylast=True)
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Move the averages towards the weights, after the step."""
        if loop.global_step < self.start_step:
            return
        self._apply_loaded(loop.model)
        if self.averaged is None:
            self._start_averaging(loop.model)
        else:
            self._update(self.averaged, loop.model)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Replace the weights by the averages outside of training, and restore them."""
        self._apply_loaded(loop.model)
        if loop.is_training or self.averaged is None:
            return (yield)
        # Through .data: where validate() is called in the middle of a batch, the graph that waits
        # for its backward pass must not notice that its weights were replaced for a while.
        own = {name: tensor.data for name, tensor in _named_tensors(loop.model)}
        averages = {
            name: average
            for name, average in self._averages.items()
            # What has another shape since the last step has no average yet. Sparse tensors are
            # copied, so that the model has the average already.
            if name in own and own[name].shape == average.shape and is_plain(average)
        }
        before = {name: own[name].clone() for name in averages}
        try:
            _copy_all(averages, own)
            return (yield)
        finally:
            # listed again: a component may have moved the model to a device in on_epoch_begin
            tensors = dict(_named_tensors(loop.model))
            for name in before.keys() & tensors.keys():
                if tensors[name].shape != before[name].shape:  # a buffer that validation resized
                    tensors[name].data = tensors[name].new_empty(before[name].shape)
            _copy_all(before, {name: tensor.data for name, tensor in tensors.items()})

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of steps that have gone into them."""
        return dict(self._loaded if self.averaged is None else self.averaged.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with averages that were saved.

        Args:
            state: what `state_dict` returned.
        """
        self.averaged = None
        with _CopyAnyTensor():
            self._loaded = copy.deepcopy(dict(state))  # until there is a model

    def _apply_loaded(self, model: torch.nn.Module) -> None:
        """Make the averages from a state that was loaded, if there is one."""
        if self._loaded:
            averaged = self._start_averaging(model)
            for name, average in dict(averaged.module.named_buffers()).items():
                saved = self._loaded.get(f"module.{name}", average)
                if saved.shape != average.shape or not is_plain(average):
                    _replace(averaged.module, name, saved.to(average))
            averaged.load_state_dict(state_like(self._loaded, averaged))
            self._list_averages(averaged)
            self._loaded = {}

    def _start_averaging(self, model: torch.nn.Module) -> AveragedModel:
        """Make the averages from the weights as they are now."""
        with _CopyAnyTensor():
            make = partial(AveragedModel, multi_avg_fn=self._average, use_buffers=True)
            self.averaged = copied(model, make)
        self.averaged.n_averaged += 1
        self._list_averages(self.averaged)
        return self.averaged

    def _list_averages(self, averaged: AveragedModel) -> None:
        self._averages = dict(_named_tensors(averaged.module))
        self._plan = AveragingPlan(
            self._averages, {name for name, _ in averaged.module.named_buffers()}
        )

    def _update(self, averaged: AveragedModel, model: torch.nn.Module) -> None:
        # What averaged.update_parameters(model) does, except that it averages everything, and that
        # it copies n_averaged to the device and waits for that.
        tensors = dict(_named_tensors(model))
        if tensors.keys() != self._averages.keys():
            self._follow_names(averaged, model)
        if self._plan.shapes != [tensor.shape for tensor in tensors.values()]:
            self._follow_shapes(averaged, tensors)
        plan = self._plan
        for names, averages in plan.averaged:
            device = averages[0].device
            currents = [tensors[name].to(device) for name in names]
            self._average(averages, currents, averaged.n_averaged)
        with torch.no_grad():
            for name, average in plan.perhaps_infinite:
                current = tensors[name].to(average.device)
                # infinity less infinity would be NaN, as for the -inf of an attention mask
                has_mean = (current - average).isfinite()
                mean = average.lerp(current, 1 - self.decay)
                torch.where(has_mean, mean, current, out=average)
            for name, average in plan.copied:
                average.copy_(tensors[name])
            for name in plan.replaced:
                copied = tensors[name].detach().to(self._averages[name].device, copy=True)
                _replace(averaged.module, name, copied)
        averaged.n_averaged += 1

    def _follow_names(self, averaged: AveragedModel, model: torch.nn.Module) -> None:
        """Copy the model, where it has new tensors, and keep the averages of all others."""
        previous = self._averages
        with _CopyAnyTensor():
            averaged.module = copied(model, copy.deepcopy)
        self._list_averages(averaged)
        kept = {
            name: average
            for name, average in previous.items()
            if name in self._averages and self._averages[name].shape == average.shape
        }
        _copy_all(kept, self._averages)

    def _follow_shapes(self, averaged: AveragedModel, tensors: dict[str, torch.Tensor]) -> None:
        """Restart the averages of tensors that have another shape."""
        for name, average in self._averages.items():
            if average.shape != tensors[name].shape:
                copied = tensors[name].detach().to(average.device, copy=True)
                _replace(averaged.module, name, copied)
        self._list_averages(averaged)


_SMALL_SHARE = 0.05  # of the first weights, in an average that has left them behind


def _fitting_decay(n_steps: int) -> float:
    """Return the largest decay with which some steps leave the first weights behind, rounded.

    Example:
        >>> [_fitting_decay(n) for n in (2, 30, 220, 5000)]
        [0.05, 0.901, 0.986, 0.9994]
    """
    decay: float = _SMALL_SHARE ** (1 / (n_steps - 1))
    power: float = 10 ** (1 - math.floor(math.log10(1 - decay)))  # two digits of 1 - decay
    return math.floor(decay * power) / power


class _CopyAnyTensor(TorchFunctionMode):
    """Within it, copy.deepcopy() takes every tensor.

    Tensors with a graph, such as an auxiliary loss or the product of weight_norm that a module
    keeps after its forward pass, are copied without it; torch refuses them, and some sparse ones.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            tensor, memo = args
            if not tensor.is_leaf or tensor.layout is not torch.strided:
                memo[id(tensor)] = tensor.detach().clone()
                return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _named_tensors(model: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Return all parameters and buffers of a model by name, but those without a shape yet."""
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    return (item for item in named if not is_lazy(item[1]))


def _replace(model: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    """Exchange a tensor of a model for one that may have another shape or other indices."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    if value.layout is torch.strided:
        getattr(owner, attribute).data = value  # where it has a second name, under that too
    else:
        setattr(owner, attribute, value)


@torch.no_grad()
def _copy_all(sources: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> None:
    for name, source in sources.items():
        if name in targets:
            targets[name].copy_(source)
