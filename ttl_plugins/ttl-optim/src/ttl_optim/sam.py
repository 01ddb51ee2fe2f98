"""The component `sam`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _NormBase

from ttl_core import LoopComponent, hookimpl, local_part, optimizer_parameters
from ttl_core.arguments import flag, number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class Sam(LoopComponent):
    """Sharpness-aware minimization: steps by the gradient at the worst point nearby.

    After the backward pass of a batch that steps, the parameters of `loop.optimizers` are moved by
    `rho` along their gradient. There the batches of the step go through the loop's hooks again:
    on_grads_reset, on_forward_pass, on_loss_compute and on_backward_pass, so that components which
    accumulate, cast, scale or mix do in the second pass what they do in the first one. Then the
    parameters are restored, and all that follows sees the gradients of the second pass. Running
    statistics, and what is logged of scores and loss, are of the first pass alone.

    Args:
        rho: the distance to the point whose gradient is used, above 0.
        adaptive: whether distances are relative to the size of each weight, as in ASAM.

    Raises:
        ArgumentError: `rho` is no number above 0, or `adaptive` is no bool.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), Sam(0.05)],
        ...                      ComponentConformance.make_data())
        >>> loop.train(n_epochs=1)
        >>> loop.global_step
        3
    """

    def __init__(self, rho: float = 0.05, *, adaptive: bool = False) -> None:
        self.rho = number("rho", rho, above=0)
        self.adaptive = flag("adaptive", adaptive)
        self._batches: list[tuple[Any, Any]] = []  # of this step: the batch and its weight
        self._is_second = False

    # outermost: gradients are complete, and unscaled, when the wrappers of others have ended
    @hookimpl(wrapper=True, tryfirst=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Replace the gradients of a batch that steps by those of the second pass."""
        if self._is_second:
            return (yield)
        if self._batches and all(p.grad is None for p in optimizer_parameters(loop)):
            self._batches = []  # a component has dropped what was pending
        result = yield
        self._batches.append((loop.batch, loop.batch_size))
        if loop.is_stepping:
            batches, self._batches = self._batches, []
            self._is_second = True
            try:
                self._pass_again(loop, batches)
            finally:
                self._is_second = False
        return result

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Start a new step."""
        self._batches = []

    def state_dict(self) -> dict[str, Any]:
        """Return the batches that are pending: at a safe point, where data have no length."""
        return {"batches": [list(each) for each in self._batches]} if self._batches else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the batches that were pending.

        Args:
            state: what `state_dict` returned.
        """
        self._batches = [(batch, size) for batch, size in state.get("batches", ())]

    def _pass_again(self, loop: TrainTestLoop, batches: list[tuple[Any, Any]]) -> None:
        """Compute the gradients of the batches of a step at the worst point nearby."""
        parameters = [p for p in optimizer_parameters(loop) if p.grad is not None]
        if not parameters:
            return
        loss, batch, batch_size = loop.loss, loop.batch, loop.batch_size
        with torch.no_grad():
            before = [parameter.clone() for parameter in parameters]
        try:
            self._ascend(parameters)
            loop.hook.on_grads_reset(loop=loop)
            with _kept_statistics(loop.model):
                for i, (one, size) in enumerate(batches):
                    # as in the first pass, gradients are complete after the last batch
                    loop.is_stepping = i + 1 == len(batches)
                    loop.loss = loop.recompute(one)
                    loop.batch, loop.batch_size = one, size
                    loop.hook.on_backward_pass(loop=loop)
        finally:
            with torch.no_grad():  # torch copies no distributed ones at once
                torch._foreach_copy_([*map(local_part, parameters)], [*map(local_part, before)])
            loop.loss, loop.batch, loop.batch_size = loss, batch, batch_size

    @torch.no_grad()
    def _ascend(self, parameters: list[torch.Tensor]) -> None:
        """Move parameters up their gradient, without waiting for the device."""
        steps: list[torch.Tensor] = [p.grad for p in parameters if p.grad is not None]
        if self.adaptive:
            sizes = torch._foreach_abs(parameters)
            steps = list(torch._foreach_mul(steps, sizes))
        norm = torch.nn.utils.get_total_norm(steps)
        if self.adaptive:
            steps = list(torch._foreach_mul(steps, sizes))
        # a gradient of 0 moves nothing
        scaled = torch._foreach_mul(steps, self.rho / (norm + 1e-12))
        torch._foreach_add_(parameters, scaled)


@contextlib.contextmanager
def _kept_statistics(model: torch.nn.Module) -> Iterator[None]:
    """Let modules normalize by their batch, as in training, without an effect on their buffers."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase) and module.training and module.track_running_stats
    ]
    try:
        for module in norms:
            module.track_running_stats = False
        yield
    finally:
        for module in norms:
            module.track_running_stats = True
