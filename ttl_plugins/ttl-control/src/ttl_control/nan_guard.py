"""The component `nan-guard`."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch.nn.parameter import is_lazy

from ttl_core import LoopComponent, RunError, hookimpl, local_part, optimizer_parameters
from ttl_core.arguments import one_of, whole_number

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class NanGuard(LoopComponent):
    """A check that the loss and the gradients are finite, which stops, skips the batch or raises.

    It checks after the backward pass of all components (with loss scaling: after unscaling) and
    before the step. The gradients of the parameters in `loop.optimizers` (where there are none, of
    the model's) are checked in batches that step, the loss in others too.

    On the CPU a check is handled at once, so that no bad step is taken. On another device, waiting
    for the values would slow the run down: "stop" and "raise" handle a check when its values have
    arrived, at the next check or the one after, when steps have been taken; resume from a
    checkpoint then. Only "skip" waits for the device at each check.

    Args:
        action: "stop" ends the run as `loop.stop()` does; "skip" drops the batch and its
            gradients; "raise" raises RunError.
        every: the number of training batches from one check to the next.

    Attributes:
        reason: what was not finite, and where, the last time; None if everything was finite.
        n_skipped: how many batches were skipped.

    Raises:
        ArgumentError: `action` is none of the three, or `every` is no whole number from 1.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> class Step(LoopComponent):
        ...     def on_backward_pass(self, loop):
        ...         loop.loss = loop.model(loop.batch).sum()
        ...         loop.loss.backward()
        >>> guard = NanGuard("stop")
        >>> data = [torch.ones(1, 2), torch.tensor([[1.0, torch.nan]])]
        >>> loop = TrainTestLoop(torch.nn.Linear(2, 1), [Step(), guard], data)
        >>> loop.train(n_epochs=1)
        >>> guard.reason
        'the loss (nan) and the gradient of weight are not finite: train epoch 0, batch 1'
    """

    def __init__(
        self, action: Literal["stop", "skip", "raise"] = "stop", *, every: int = 1
    ) -> None:
        self.action = one_of("action", action, ("stop", "skip", "raise"))
        self.every = whole_number("every", every, at_least=1)
        self.reason: str | None = None
        self.n_skipped = 0
        self._n_since = 0  # batches since gradients were checked
        self._parameters: list[tuple[str, torch.Tensor]] = []
        self._listed_for: list[tuple[Optimizer, int]] | None = None
        self._pending: deque[_Check] = deque()  # on their way from the device

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Forget the parameters, which the first check of an epoch lists."""
        if loop.is_training:
            self._pending.clear()  # a run that failed may have left some
            self._listed_for = None

    # outermost: after components that unscale gradients in a wrapper
    @hookimpl(wrapper=True, tryfirst=True)
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Check the loss and the gradients, if a check is due."""
        result = yield
        self._n_since += 1
        if self._n_since >= self.every:
            self._check(loop)
        return result

    @hookimpl(tryfirst=True)  # before components use the values of an epoch that does not count
    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Handle the checks whose values have not arrived yet."""
        if loop.is_training:
            self._poll(loop, wait=True)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches were skipped, and how many there were since the last check."""
        return {"n_skipped": self.n_skipped, "n_since": self._n_since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume counting.

        Args:
            state: what `state_dict` returned.
        """
        self.n_skipped, self._n_since = state["n_skipped"], state["n_since"]

    def _list_parameters(self, loop: TrainTestLoop, optimizers: Sequence[Optimizer]) -> None:
        """List the parameters whose gradients make a step, unless the optimizers are the same."""
        listed_for = [(optimizer, len(optimizer.param_groups)) for optimizer in optimizers]
        if listed_for == self._listed_for:  # listing them in each batch would be slow
            return
        self._listed_for = listed_for
        named: list[tuple[str, torch.Tensor]] = [*loop.model.named_parameters()]
        if optimizers:
            names = {id(parameter): name for name, parameter in named}
            named = [
                (names.get(id(parameter), f"parameter {i} of loop.optimizers"), parameter)
                for i, parameter in enumerate(optimizer_parameters(loop))
            ]
        # A lazy layer may have seen no batch yet; its parameters stay the same objects.
        self._parameters = [item for item in named if is_lazy(item[1]) or item[1].numel()]

    def _check(self, loop: TrainTestLoop) -> None:
        """Check this batch: at once, or when its values have arrived."""
        check = self._measure(loop)
        if check is None:
            return
        if check.values.is_cpu or self.action == "skip":
            self._handle(loop, check)
        else:
            self._pending.append(check.copy_to_cpu())
            self._poll(loop, wait=False)

    def _measure(self, loop: TrainTestLoop) -> _Check | None:
        """Reduce the loss and each gradient to a number, on their device."""
        names: list[str] = []
        tensors: list[torch.Tensor] = []
        if loop.is_stepping:
            self._n_since = 0
        optimizers = getattr(loop, "optimizers", ())
        if loop.is_stepping and not _may_overflow(optimizers):
            self._list_parameters(loop, optimizers)
            for name, parameter in self._parameters:
                if parameter.grad is not None:
                    names.append(name)
                    tensors.append(local_part(parameter.grad))
        loss = getattr(loop, "loss", None)
        if isinstance(loss, torch.Tensor):
            names.append(_LOSS)
            tensors.append(loss.detach())
        if not tensors:
            return None
        return _Check(names, _largest_values(tensors), None, loop.epoch_num, loop.batch_num)

    def _poll(self, loop: TrainTestLoop, *, wait: bool) -> None:
        """Handle the checks whose values have arrived from the device; all of them with `wait`."""
        while self._pending and (wait or self._pending[0].has_arrived()):
            check = self._pending.popleft()
            if check.arrival is not None:
                check.arrival.synchronize()
            self._handle(loop, check)

    def _handle(self, loop: TrainTestLoop, check: _Check) -> None:
        """Stop, skip the batch or raise, if a value is not finite."""
        values = check.values.tolist()
        is_finite = all(map(math.isfinite, values))
        if self.action == "skip":  # which all processes of a group have to do together
            if not loop.group.any(not is_finite):
                return
        elif is_finite:
            return
        self.reason = check.reason(values)
        self._pending.clear()
        if self.action == "raise":
            raise RunError(f"nan-guard: {self.reason}")
        _log.warning("nan-guard: %s: %s", self.action, self.reason)
        if self.action == "stop":
            # not at the next safe point: only a step would lead to one
            loop.stop(self.reason)
        self.n_skipped += 1
        loop.is_stepping = False
        loop.model.zero_grad()
        for optimizer in getattr(loop, "optimizers", ()):
            optimizer.zero_grad()  # it may have parameters that are not the model's


class _Check(NamedTuple):
    """The values of one batch that have to be finite.

    Attributes:
        names: the names of the parameters, and of the loss.
        values: the largest absolute value of each.
        arrival: the event after which `values` can be read; None if they can be read at once.
        epoch_num: the epoch of the batch.
        batch_num: the number of the batch.
    """

    names: list[str]
    values: torch.Tensor
    arrival: torch.Event | None
    epoch_num: int
    batch_num: int

    def copy_to_cpu(self) -> _Check:
        """Return the same with values on their way to the CPU, into pinned memory."""
        values = self.values.to("cpu", non_blocking=True)
        arrival = torch.Event(self.values.device)
        arrival.record()
        return self._replace(values=values, arrival=arrival)

    def has_arrived(self) -> bool:
        return self.arrival is None or bool(self.arrival.query())

    def reason(self, values: list[float]) -> str:
        bad = {n: v for n, v in zip(self.names, values, strict=True) if not math.isfinite(v)}
        where = f"train epoch {self.epoch_num}, batch {self.batch_num}"
        if not bad:
            return f"the loss of another process is not finite: {where}"
        loss = [f"the loss ({bad.pop(_LOSS)})"] if _LOSS in bad else []
        gradients = [f"the gradient{'s' * (len(bad) > 1)} of {', '.join(bad)}"] if bad else []
        verb = "is" if len(loss) + len(bad) == 1 else "are"
        return f"{' and '.join(loss + gradients)} {verb} not finite: {where}"


_LOSS = ""  # no parameter has this name


def _may_overflow(optimizers: Sequence[Optimizer]) -> bool:
    """Return whether loss scaling lets a fused optimizer decide to skip its step."""
    return any(getattr(each, "found_inf", None) is not None for each in optimizers)


def _largest_values(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the largest absolute value of each tensor, not finite where one in it is not."""
    try:
        return torch.stack(torch._foreach_norm(tensors, math.inf))
    except RuntimeError:  # some are sparse or empty, or they are on several devices
        dense = (t.coalesce().values() if t.is_sparse else t for t in tensors)
        # an empty one, as of unused rows or of the part of a process, has no largest value
        norms = [torch.linalg.vector_norm(t, math.inf) if t.numel() else t.sum() for t in dense]
        return torch.stack([norm.to(norms[0].device, non_blocking=True) for norm in norms])
