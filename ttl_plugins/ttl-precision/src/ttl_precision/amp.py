"""The component `amp`."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from ttl_core import (
    LoopComponent,
    find_device,
    hookimpl,
    leave_out_hooks,
    optimizer_parameters,
)
from ttl_core.arguments import number, one_of, user_stacklevel, whole_number

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from ttl_core import TrainTestLoop

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Amp(LoopComponent):
    """Automatic mixed precision for scores and loss, whichever component computes them.

    With fp16 the loss is scaled for the backward pass, so that small gradients do not vanish. Right
    after the backward pass of a batch that steps, the gradients of `loop.optimizers` are unscaled
    again. If one of them has overflowed there is no step: the gradients are dropped, and the
    epoch's number of such steps is logged as "skipped-steps".

    Args:
        dtype: "bf16" or "fp16".
        device_type: "cuda", "cpu" ...; None for that of the model.
        init_scale: with fp16, by what losses are multiplied at first; above 0.
        growth_interval: with fp16, after how many steps without overflow the scale is doubled.

    Raises:
        ArgumentError: an argument has an unusable value.

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
        self.dtype = one_of("dtype", dtype, _DTYPES)
        self.device_type = None
        if device_type is not None:
            self.device_type = find_device("device_type", device_type).type
        self.init_scale = number("init_scale", init_scale, above=0)
        self.growth_interval = whole_number("growth_interval", growth_interval, at_least=1)
        self._autocast: torch.autocast | None = None  # of this epoch, from its first batch on
        self._scaler: torch.amp.GradScaler | None = None
        self._loaded: Mapping[str, Any] = {}
        self._n_skipped: Any = 0
        self._has_warned = False
        self._handles: dict[Optimizer, RemovableHandle] = {}  # of fused ones, in this epoch
        if dtype == "bf16":  # otherwise each batch would pay for a wrapper that does nothing
            leave_out_hooks(self, Amp, ["on_backward_pass"])

    @hookimpl(wrapper=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Clear the cache of cast weights at both ends of an epoch.

        autocast keeps it while it is enabled, as it is where validate() is called inside a forward
        pass. Casts from an epoch without gradients have no graph, and may be of other weights.
        """
        outer = self._autocast
        self._autocast = None  # the model may have moved, and one in use cannot be entered again
        torch.clear_autocast_cache()
        try:
            return (yield)
        finally:
            torch.clear_autocast_cache()
            self._autocast = outer
            if loop.is_training:
                for handle in self._handles.values():
                    handle.remove()
                self._handles.clear()

    @hookimpl(wrapper=True)
    def on_forward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Compute scores in mixed precision."""
        with self._autocast or self._make_autocast(loop.model):
            return (yield)

    @hookimpl(wrapper=True)
    def on_loss_compute(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Compute the loss in mixed precision."""
        with self._autocast or self._make_autocast(loop.model):
            return (yield)

    @hookimpl(wrapper=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """With fp16, scale the loss for it, and after it unscale the gradients of a step."""
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
        """Set the number of skipped steps to 0."""
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
        """Resume with a scale and a number of skipped steps.

        Args:
            state: what `state_dict` returned.
        """
        self._loaded = dict(state)  # until the first loss shows the device
        self._scaler = None
        self._n_skipped = state.get("n_skipped", 0)

    def _make_autocast(self, model: torch.nn.Module) -> torch.autocast:
        """Make what the batches of this epoch enter, each at two points, never inside itself."""
        device_type = self.device_type
        if device_type is None:
            first = next(model.parameters(), None)
            device_type = "cpu" if first is None else first.device.type
        self._autocast = torch.autocast(device_type, _DTYPES[self.dtype])
        return self._autocast

    def _unscale(self, loop: TrainTestLoop, scaler: torch.amp.GradScaler) -> None:
        """Unscale the gradients, and skip the step if one of them has overflowed."""
        if all(parameter.grad is None for parameter in optimizer_parameters(loop)):
            return  # nothing can overflow, and the scaler takes this for a mistake
        optimizers = loop.optimizers
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        # The only public sign of an overflow is that the scale shrinks. It is updated right here,
        # because it does not depend on whether there will be a step.
        scale = scaler.scale(self._one)
        scaler.update()
        has_overflowed = scaler.scale(self._one) < scale
        unfused = [optimizer for optimizer in optimizers if not _is_fused(optimizer)]
        if not unfused and not any(map(_has_to_wait, optimizers)):
            for optimizer in optimizers:
                self._skip_on_device(optimizer, has_overflowed)
            self._n_skipped = self._n_skipped + has_overflowed
            return
        if unfused:
            self._warn_of_waiting(unfused, scale.device)
        if has_overflowed:
            loop.is_stepping = False
            loop.model.zero_grad()  # also of parameters that no optimizer steps
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            self._n_skipped += 1

    def _skip_on_device(self, optimizer: Any, has_overflowed: torch.Tensor) -> None:
        """Let a fused optimizer skip its next step on an overflow, as `GradScaler.step` does."""
        if isinstance(optimizer, torch.optim.SGD) and not optimizer.state:
            _start_momentum(optimizer)
        optimizer.found_inf = has_overflowed.float()
        if optimizer not in self._handles:  # until the epoch ends: no hook can remove itself
            self._handles[optimizer] = optimizer.register_step_post_hook(_forget_overflow)

    def _make_scaler(self, device: torch.device) -> torch.amp.GradScaler:
        self._one = torch.ones((), device=device)
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=self.init_scale, growth_interval=self.growth_interval
        )
        if self._loaded:
            self._scaler.load_state_dict(self._loaded["scaler"])
            self._loaded = {}
        return self._scaler

    def _warn_of_waiting(self, unfused: Sequence[Optimizer], device: torch.device) -> None:
        if device.type != "cpu" and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "'amp' with dtype='fp16' waits for the device in every step, to read whether "
                f"gradients have overflowed: {type(unfused[0]).__name__} is not fused. Make it "
                "with fused=True, which skips the step on the device",
                UserWarning,
                stacklevel=user_stacklevel(),
            )


def _is_fused(optimizer: Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def _forget_overflow(optimizer: Optimizer, *_: object) -> None:
    vars(optimizer).pop("found_inf", None)


# The fused SGD of torch creates the momentum of a first step even where it skips that, and leaves
# in it what was in the memory before.


def _has_to_wait(optimizer: Optimizer) -> bool:
    """Return whether a first step has to be skipped by the loop: with dampening it is special."""
    if not isinstance(optimizer, torch.optim.SGD) or optimizer.state:
        return False
    return any(group["momentum"] and group["dampening"] for group in optimizer.param_groups)


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Begin with a momentum of 0, with which a first step is what it is without one."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if parameter.grad is not None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(
                    parameter, memory_format=torch.preserve_format
                )
