"""The component `label-smoothing`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from ttl_core import ArgumentError, LoopComponent, RunError, hookimpl
from ttl_core.arguments import describe, number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class LabelSmoothing(LoopComponent):
    """Smoothed targets in every cross-entropy that a training loss is computed with.

    Around on_loss_compute, torch.nn.functional.cross_entropy is called with `label_smoothing`, be
    it by a module, by a partial or within a function of one's own. What calls it with a smoothing
    of its own keeps that. Other phases have plain losses.

    Args:
        smoothing: the share of each target that all classes get alike, from 0 to below 1.

    Raises:
        ArgumentError: `smoothing` is not in that range.
        RunError: in training, no cross-entropy was called in on_loss_compute.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), LabelSmoothing(0.1)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> inputs, targets = loop.batch
        >>> smoothed = torch.nn.functional.cross_entropy(loop.scores, targets, label_smoothing=0.1)
        >>> bool(loop.loss == smoothed)
        True
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        if not 0 <= number("smoothing", smoothing) < 1:
            raise ArgumentError(
                f"smoothing is {describe(smoothing)}, but has to be a number from 0 to below 1"
            )
        self.smoothing = smoothing
        self._mode = _Smoothing(smoothing)

    @hookimpl(wrapper=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Smooth the targets of a training loss."""
        if not loop.is_training:
            return (yield)
        mode = self._mode
        mode.has_smoothed = False
        with mode:
            result = yield
        if not mode.has_smoothed:
            raise RunError(
                "'label-smoothing' found no call of torch.nn.functional.cross_entropy in "
                "on_loss_compute, so it would change nothing. It acts on cross-entropies alone, "
                "and on those that are computed there, not in the forward pass of the model"
            )
        return result


class _Smoothing(TorchFunctionMode):
    """A mode in which cross-entropies are computed with smoothed targets."""

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.has_smoothed = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.cross_entropy:
            return func(*args, **(kwargs or {}))
        self.has_smoothed = True
        kwargs = dict(kwargs or {})
        kwargs["label_smoothing"] = kwargs.get("label_smoothing") or self.smoothing
        return func(*args, **kwargs)
