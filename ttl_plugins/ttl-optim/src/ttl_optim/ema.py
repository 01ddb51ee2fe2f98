"""The component `ema`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ttl_core import ArgumentError, LoopComponent, hookimpl
from ttl_core.arguments import number, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Ema(LoopComponent):
    """Exponential moving averages of the weights, with which the model is validated and tested.

    After each optimization step the averages of all parameters and buffers move towards the
    model's. For each validation, test or prediction epoch they are copied into the model, and the
    model's own values are restored when the epoch ends, however it ends. Parameters stay the same
    objects throughout.

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
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Ema(decay=0.9)],
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
        self._averages: list[torch.Tensor] = []
        self._loaded: Mapping[str, Any] = {}

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
        tensors = [tensor.data for tensor in _tensors(loop.model)]
        own = [tensor.clone() for tensor in tensors]
        try:
            _copy_all(self._averages, tensors)
            return (yield)
        finally:
            # listed again: a component may have moved the model to a device in on_epoch_begin
            _copy_all(own, [tensor.data for tensor in _tensors(loop.model)])

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of steps that have gone into them."""
        return dict(self._loaded if self.averaged is None else self.averaged.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with averages that were saved.

        Args:
            state: what `state_dict` returned.
        """
        self.averaged = None
        self._loaded = copy.deepcopy(dict(state))  # until there is a model

    def _apply_loaded(self, model: torch.nn.Module) -> None:
        """Make the averages from a state that was loaded, if there is one."""
        if self._loaded:
            self._start_averaging(model).load_state_dict(self._loaded)
            self._loaded = {}

    def _start_averaging(self, model: torch.nn.Module) -> AveragedModel:
        """Make the averages from the weights as they are now."""
        self.averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)
        self.averaged.n_averaged += 1
        self._averages = _tensors(self.averaged.module)
        return self.averaged

    def _update(self, averaged: AveragedModel, model: torch.nn.Module) -> None:
        # What averaged.update_parameters(model) does, except that it copies n_averaged to the
        # device and waits for that.
        groups: dict[Any, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for average, current in zip(self._averages, _tensors(model), strict=True):
            group = groups.setdefault((average.device, average.dtype), ([], []))
            group[0].append(average)
            group[1].append(current.to(average.device))
        for averages, currents in groups.values():
            self._average(averages, currents, averaged.n_averaged)
        averaged.n_averaged += 1


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return list(itertools.chain(model.parameters(), model.buffers()))


@torch.no_grad()
def _copy_all(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
