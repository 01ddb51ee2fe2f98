"""The component `amp`."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Amp(LoopComponent):
    """Compute scores and loss in automatic mixed precision, whoever computes them.

    With fp16 the loss is scaled for the backward pass, so that small gradients do not vanish. Right
    after the backward pass of a batch that steps, the gradients of `loop.optimizer` are true ones
    again. Where one of them has overflowed there is no step: its gradients are dropped, and the
    epoch's number of such steps is logged as "skipped-steps".

    Args:
        dtype: "bf16" or "fp16".
        device_type: "cuda", "cpu" ...; None for that of the model.
        init_scale: with fp16, by what losses are multiplied at first.
        growth_interval: with fp16, after how many steps without overflow that is doubled.

    Raises:
        ValueError: `dtype` is another one.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Amp()],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.scores.dtype
        torch.bfloat16
    """

    def __init__(
        self,
        dtype: Literal["bf16", "fp16"] = "bf16",
        *,
        device_type: str | None = None,
        init_scale: float = 2.0**16,
        growth_interval: int = 2000,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"dtype is {dtype!r}, neither 'bf16' nor 'fp16'")
        self.dtype = dtype
        self.device_type = device_type
        self.init_scale = init_scale
        self.growth_interval = growth_interval
        self._device_type = device_type
        self._scaler: torch.amp.GradScaler | None = None
        self._loaded: Mapping[str, Any] = {}
        self._n_skipped: Any = 0
        self._has_warned = False

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Let no cast of a weight go into or out of an epoch.

        autocast keeps them while it is on, as it is where validate() is called inside a forward
        pass. Those of an epoch without gradients have no graph, and may be of other weights.
        """
        self._device_type = self.device_type  # the model may have moved
        torch.clear_autocast_cache()
        try:
            return (yield)
        finally:
            torch.clear_autocast_cache()

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Compute scores in mixed precision."""
        with torch.autocast(self._type(loop), _DTYPES[self.dtype]):
            return (yield)

    @hookimpl(wrapper=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Compute the loss in mixed precision."""
        with torch.autocast(self._type(loop), _DTYPES[self.dtype]):
            return (yield)

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """With fp16, scale the loss for it, and after it unscale the gradients of a step."""
        if self.dtype == "bf16":
            return (yield)
        loss = loop.loss
        scaler = self._scaler or self._make_scaler(loss.device)
        loop.loss = scaler.scale(loss)
        try:
            result = yield
        finally:
            loop.loss = loss
        if loop.is_stepping:
            self._unscale(loop, scaler)
        return result

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Count skipped steps from 0."""
        if loop.is_training:
            self._n_skipped = 0

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """With fp16, log the number of skipped steps of a training epoch."""
        if loop.is_training and self.dtype == "fp16":
            loop.log({"skipped-steps": self._n_skipped}, level="epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return the scale, and the number of steps skipped in this epoch."""
        if self._scaler is None:
            return dict(self._loaded)
        return {"scaler": self._scaler.state_dict(), "n_skipped": int(self._n_skipped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a scale and a number of skipped steps.

        Args:
            state: what `state_dict` returned.
        """
        self._loaded = dict(state)  # until there is a loss, which tells the device
        self._scaler = None
        self._n_skipped = state.get("n_skipped", 0)

    def _type(self, loop: TrainTestLoop) -> str:
        if self._device_type is None:
            first = next(loop.model.parameters(), None)
            self._device_type = "cpu" if first is None else first.device.type
        return self._device_type

    def _unscale(self, loop: TrainTestLoop, scaler: torch.amp.GradScaler) -> None:
        optimizer = loop.optimizer
        scaler.unscale_(optimizer)
        # That the scale shrinks is how a scaler says, in public, that it has found an overflow. It
        # is updated at once: whether there will be a step does not matter to it.
        scale = scaler.scale(self._one)
        scaler.update()
        has_overflowed = scaler.scale(self._one) < scale
        if all(group.get("fused") for group in optimizer.param_groups):
            _skip_on_device(optimizer, has_overflowed)
            self._n_skipped = self._n_skipped + has_overflowed
            return
        self._warn_of_waiting(optimizer, scale.device)
        if has_overflowed:
            loop.is_stepping = False
            optimizer.zero_grad(set_to_none=True)
            self._n_skipped += 1

    def _make_scaler(self, device: torch.device) -> torch.amp.GradScaler:
        self._one = torch.ones((), device=device)
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=self.init_scale, growth_interval=self.growth_interval
        )
        if self._loaded:
            self._scaler.load_state_dict(self._loaded["scaler"])
            self._loaded = {}
        return self._scaler

    def _warn_of_waiting(self, optimizer: Optimizer, device: torch.device) -> None:
        if device.type != "cpu" and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"'amp' with dtype='fp16' waits for the device in every step, to see whether "
                f"gradients have overflowed: {type(optimizer).__name__} is not fused. Make it with "
                "fused=True, which looks for itself",
                UserWarning,
                stacklevel=2,
            )


def _skip_on_device(optimizer: Any, has_overflowed: torch.Tensor) -> None:
    """Tell a fused optimizer whether to skip its next step, as `GradScaler.step` does."""
    optimizer.found_inf = has_overflowed.float()

    def forget(*_: object) -> None:
        vars(optimizer).pop("found_inf", None)
        handle.remove()

    handle = optimizer.register_step_post_hook(forget)
