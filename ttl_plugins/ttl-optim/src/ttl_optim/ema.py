"""The component `ema`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Ema(LoopComponent):
    """Keep exponential moving averages of the weights, and validate and test with them.

    After each optimization step averages of all parameters and buffers move towards the model's.
    For each validation or test epoch they are copied into the model, and the model's own are put
    back when it ends, in whatever way. Parameters stay the same objects throughout.

    Args:
        decay: how much of the average stays in each step.
        start_step: the optimization step, as `loop.global_step` counts, with which averaging
            begins. Until then there are no averages.

    Attributes:
        averaged: the averages, in a copy of the model as `averaged.module`; None before the first.

    Raises:
        ValueError: `decay` is not between 0 and 1.

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
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # it checks
        self.decay = decay
        self.start_step = start_step
        self.averaged = None
        self._averages: list[torch.Tensor] = []
        self._loaded: Mapping[str, Any] = {}

    @hookimpl(trylast=True)
    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Move the averages towards the weights, after the step."""
        if loop.global_step < self.start_step:
            return
        self._restore(loop.model)
        if self.averaged is None:
            self._begin(loop.model)
        else:
            self._update(self.averaged, loop.model)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Put the averages in place of the weights in validation and testing, and take them out."""
        self._restore(loop.model)
        if loop.is_training or self.averaged is None:
            return (yield)
        # Through .data: a graph that is waiting for its backward pass, where validate() was called
        # in the middle of a batch, shall not see that its weights were away for a while.
        tensors = [tensor.data for tensor in _tensors(loop.model)]
        own = [tensor.clone() for tensor in tensors]
        try:
            _copy_all(self._averages, tensors)
            return (yield)
        finally:
            _copy_all(own, tensors)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and how many steps have gone into them."""
        return dict(self._loaded if self.averaged is None else self.averaged.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what has been averaged.

        Args:
            state: what `state_dict` returned.
        """
        self.averaged = None
        self._loaded = copy.deepcopy(dict(state))  # until there is a model

    def _restore(self, model: torch.nn.Module) -> None:
        if self._loaded:
            self._begin(model).load_state_dict(self._loaded)
            self._loaded = {}

    def _begin(self, model: torch.nn.Module) -> AveragedModel:
        """Make the averages from the weights as they are now."""
        self.averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)
        self.averaged.n_averaged += 1
        self._averages = _tensors(self.averaged.module)
        return self.averaged

    def _update(self, averaged: AveragedModel, model: torch.nn.Module) -> None:
        # As averaged.update_parameters(model) does it, which copies n_averaged to the device and
        # waits for that.
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
def _copy_all(source: list[torch.Tensor], target: list[torch.Tensor]) -> None:
    for one, other in zip(source, target, strict=True):
        other.copy_(one)
