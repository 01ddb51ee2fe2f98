"""The component `nan-guard`."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from ttl_core import LoopComponent, RunError, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)


class NanGuard(LoopComponent):
    """Stop, skip the batch or raise where the loss or a gradient is not finite.

    It looks after everybody's backward pass (with loss scaling: after unscaling), before the
    step. Gradients are looked at in batches that step, the loss in others too.

    On the CPU it looks at once, so that no bad step is taken. On another device, waiting for the
    values would slow the run down: "stop" and "raise" look at them when they have arrived, at the
    next check or the one after, when steps have been taken; go back to a checkpoint. Only "skip"
    waits for the device at each check.

    Args:
        action: "stop" ends the run as `loop.stop()` does; "skip" drops the batch and its
            gradients; "raise" raises RunError.
        every: every how many training batches to look.

    Attributes:
        reason: what was not finite, where, the last time; None if all was.
        n_skipped: how many batches were skipped.

    Raises:
        ValueError: `action` is none of the three, or `every` is no whole number from 1.

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
        if action not in ("stop", "skip", "raise"):
            raise ValueError(f"action is {action!r}, none of 'stop', 'skip' and 'raise'")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}, no whole number from 1")
        self.action = action
        self.every = every
        self.reason: str | None = None
        self.n_skipped = 0
        self._n_since = 0  # batches since gradients were looked at
        self._parameters: list[tuple[str, torch.nn.Parameter]] = []
        self._on_their_way: deque[_Check] = deque()

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Note the model's parameters: listing them in each batch would take its time."""
        if loop.is_training:
            self._on_their_way.clear()  # a run that failed may have left some
            self._note_parameters(loop)

    @hookimpl(wrapper=True, tryfirst=True)  # outermost: after whoever unscales in a wrapper
    def on_backward_pass(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Look at the loss and the gradients, if it is time to."""
        result = yield
        self._n_since += 1
        if self._n_since >= self.every:
            self._look(loop)
        return result

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Look at what has not arrived yet."""
        if loop.is_training:
            self._receive(loop, wait=True)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches were skipped, and when it looked last."""
        return {"n_skipped": self.n_skipped, "n_since": self._n_since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Args:
            state: what `state_dict` returned.
        """
        self.n_skipped, self._n_since = state["n_skipped"], state["n_since"]

    def _note_parameters(self, loop: TrainTestLoop) -> None:
        self._parameters = [item for item in loop.model.named_parameters() if item[1].numel()]

    def _look(self, loop: TrainTestLoop) -> None:
        check = self._check(loop)
        if check is None:
            return
        if check.values.is_cpu or self.action == "skip":
            self._judge(loop, check)
        else:
            self._on_their_way.append(check.sent())
            self._receive(loop, wait=False)

    def _check(self, loop: TrainTestLoop) -> _Check | None:
        """Reduce the loss and each gradient to a number, on their device."""
        names: list[str] = []
        tensors: list[torch.Tensor] = []
        if not self._parameters:  # this component was switched on in the middle of the epoch
            self._note_parameters(loop)
        optimizer = getattr(loop, "optimizer", None)
        if loop.is_stepping:
            self._n_since = 0
        # an overflow is fine where loss scaling has told a fused optimizer whether to skip its step
        if loop.is_stepping and getattr(optimizer, "found_inf", None) is None:
            for name, parameter in self._parameters:
                if parameter.grad is not None:
                    names.append(name)
                    tensors.append(parameter.grad)
        loss = getattr(loop, "loss", None)
        if isinstance(loss, torch.Tensor):
            names.append(_LOSS)
            tensors.append(loss.detach())
        if not tensors:
            return None
        return _Check(names, _sizes(tensors), None, loop.epoch_num, loop.batch_num)

    def _receive(self, loop: TrainTestLoop, *, wait: bool) -> None:
        """Judge what has arrived from the device."""
        while self._on_their_way and (wait or self._on_their_way[0].has_arrived()):
            check = self._on_their_way.popleft()
            if check.arrival is not None:
                check.arrival.synchronize()
            self._judge(loop, check)

    def _judge(self, loop: TrainTestLoop, check: _Check) -> None:
        values = check.values.tolist()
        if all(map(math.isfinite, values)):
            return
        self.reason = check.reason(values)
        self._on_their_way.clear()
        if self.action == "raise":
            raise RunError(f"nan-guard: {self.reason}")
        _log.warning("nan-guard: %s: %s", self.action, self.reason)
        if self.action == "stop":
            # not at the next safe point: only a step would lead to one
            loop.stop()
        self.n_skipped += 1
        loop.is_stepping = False
        loop.model.zero_grad()
        if (optimizer := getattr(loop, "optimizer", None)) is not None:
            optimizer.zero_grad()  # it may have parameters that are not the model's


class _Check(NamedTuple):
    """Hold what was looked at in a batch.

    Attributes:
        names: of the parameters; of the loss.
        values: the largest absolute value of each.
        arrival: the event after which `values` may be read; None if they may at once.
        epoch_num: when it was.
        batch_num: when it was.
    """

    names: list[str]
    values: torch.Tensor
    arrival: torch.Event | None
    epoch_num: int
    batch_num: int

    def sent(self) -> _Check:
        """Return the same with values on their way to the CPU, into pinned memory."""
        values = self.values.to("cpu", non_blocking=True)
        arrival = torch.Event(self.values.device)
        arrival.record()
        return self._replace(values=values, arrival=arrival)

    def has_arrived(self) -> bool:
        return self.arrival is None or bool(self.arrival.query())

    def reason(self, values: list[float]) -> str:
        bad = {n: v for n, v in zip(self.names, values, strict=True) if not math.isfinite(v)}
        loss = [f"the loss ({bad.pop(_LOSS)})"] if _LOSS in bad else []
        gradients = [f"the gradient{'s' * (len(bad) > 1)} of {', '.join(bad)}"] if bad else []
        verb = "is" if len(loss) + len(bad) == 1 else "are"
        return (
            f"{' and '.join(loss + gradients)} {verb} not finite: train epoch {self.epoch_num}, "
            f"batch {self.batch_num}"
        )


_LOSS = ""  # no parameter has this name


def _sizes(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the largest absolute value of each tensor, not finite where one in it is not."""
    try:
        return torch.stack(torch._foreach_norm(tensors, math.inf))
    except RuntimeError:  # some are sparse, or they lie on several devices
        dense = (t.coalesce().values() if t.is_sparse else t for t in tensors)
        # an empty one, such as that of unused rows, has no largest value
        norms = [torch.linalg.vector_norm(t, math.inf) if t.numel() else t.sum() for t in dense]
        return torch.stack([norm.to(norms[0].device, non_blocking=True) for norm in norms])
