"""The component `rollback`."""

from __future__ import annotations

import logging
import math
from collections import deque
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ttl_control.hookspecs import RollbackPoints
from ttl_core import ArgumentError, LoopComponent, RunError, hookimpl
from ttl_core.arguments import number, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_log = logging.getLogger(__name__)

UNPROVEN = "unproven"
"""The file in a checkpoint that says that it is not proven; resuming prefers others."""

_RATES = {"lr", "initial_lr", "max_lr", "min_lr", "full_lr"}
"""What groups of parameters hold of learning rates; lr-schedule computes them from "full_lr"."""

_MIN_LOSSES = 20  # before which a spike cannot be told from noise


class _Kept(NamedTuple):
    """A state in memory, and the step at which it was taken."""

    step: int
    state: dict[str, Any]


class Rollback(LoopComponent):
    """A return to the newest healthy state when the loss spikes or is not finite.

    A loss spikes where it is above the median of a window by more than `threshold` times what
    losses there usually differ by: a robust z-score, from the median absolute deviation. Then the
    run rewinds to the newest state that `n_quiet` steps without a spike have followed, and
    continues with the batches behind the current one, so that those in between are left out.

    States are kept in memory, on the CPU: one that is healthy, and those that are to become it.
    With `checkpoint` in the list, each checkpoint is marked as unproven until `n_quiet` steps have
    followed it; resuming prefers proven ones. On a device, a loss is read one step later, so that
    no step waits for it.

    Args:
        window: how many losses of steps a new one is compared with.
        threshold: how large a robust z-score is a spike.
        every: the number of steps from one state that is kept to the next.
        n_quiet: after how many steps without a spike a state is healthy.
        max_rollbacks: how often the run may go back; a spike after that is an error.
        lr_factor: what learning rates are multiplied by each time.

    Attributes:
        n_rollbacks: how often the run has gone back.

    Raises:
        ArgumentError: an argument has an unusable value.

    Example:
        >>> from ttl_core.testing import Step, tiny_loop
        >>> loop = tiny_loop(Step(), Rollback(every=5, n_quiet=5), n_batches=20)
        >>> inputs, targets = loop.train_data[15]
        >>> loop.train_data[15] = inputs * float("nan"), targets
        >>> loop.train(n_epochs=1)
        >>> loop.components["rollback"].n_rollbacks, loop.global_step
        (1, 15)
    """

    hookspecs = RollbackPoints

    def __init__(
        self,
        *,
        window: int = 50,
        threshold: float = 10.0,
        every: int = 20,
        n_quiet: int = 20,
        max_rollbacks: int = 3,
        lr_factor: float = 1.0,
    ) -> None:
        self.window = whole_number("window", window, at_least=_MIN_LOSSES)
        self.threshold, self.lr_factor = threshold, lr_factor
        if not number("threshold", threshold) > 0:
            raise ArgumentError(f"threshold is {threshold!r}, but has to be above 0")
        if not 0 < number("lr_factor", lr_factor) <= 1:
            raise ArgumentError(f"lr_factor is {lr_factor!r}, but has to be in (0, 1]")
        self.every = whole_number("every", every, at_least=1)
        self.n_quiet = whole_number("n_quiet", n_quiet)
        self.max_rollbacks = whole_number("max_rollbacks", max_rollbacks)
        self.n_rollbacks = 0
        self._losses: deque[float] = deque(maxlen=self.window)
        self._lr_scale = 1.0  # of all rollbacks so far, as it is applied
        self._lr_due = 1.0  # what is not applied yet
        self._waiting: list[Any] = []  # losses that are not judged yet
        self._kept: list[_Kept] = []
        self._unproven: list[tuple[int, Path]] = []
        # that of the newest checkpoint, which a thread may still write; None if that is undone
        self._saving_step: int | None = None
        self._is_going_back = False

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Forget the states of another train().

        Raises:
            RunError: several processes train together.
        """
        if loop.group.size > 1:  # a process that goes back alone would leave the others waiting
            raise RunError(
                "rollback decides by the loss of its own process, and does not work yet in a group "
                f"of {loop.group.size}. Train in one process, or disable it there"
            )
        self._waiting, self._kept, self._unproven = [], [], []

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Lower the learning rates and log, after the run has gone back."""
        if self._is_going_back and loop.is_training:
            self._is_going_back = False
            self._scale_rates(loop)
            loop.log({"n-rollbacks": self.n_rollbacks})

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Keep the loss for the next safe point."""
        if loop.is_training:
            self._waiting.append(loop.loss.detach())

    @hookimpl(tryfirst=True)  # before what saves a state that is not healthy
    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Go back if the loss spikes, else keep a state where one is due."""
        n = len(self._waiting)
        if n and self._waiting[-1].device.type != "cpu":
            n -= 1  # as waiting for the newest one would make the device idle
        for loss in [value.item() for value in self._waiting[:n]]:
            if self._is_spike(loss):
                self._go_back(loop, loss)
            self._losses.append(loss)
        del self._waiting[:n]
        self._prove(loop.global_step)
        if not self._kept or loop.global_step >= self._kept[-1].step + self.every:
            self._keep(loop)

    def _is_spike(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        if len(self._losses) < _MIN_LOSSES:
            return False
        middle = median(self._losses)
        deviation = 1.4826 * median(abs(value - middle) for value in self._losses)
        return loss - middle > self.threshold * max(deviation, 1e-3 * abs(middle), 1e-12)

    def _keep(self, loop: TrainTestLoop) -> None:
        unused = self._healthy(loop.global_step)[:-1]
        memory = unused[-1].state if unused else None
        del self._kept[: len(unused)]  # the oldest ones
        self._kept.append(_Kept(loop.global_step, loop.state_dict(out=memory)))

    def _healthy(self, step: int) -> list[_Kept]:
        return [one for one in self._kept if one.step <= step - self.n_quiet]

    def _prove(self, step: float) -> None:
        for saved_at, path in self._unproven:
            if saved_at <= step - self.n_quiet:
                (path / UNPROVEN).unlink(missing_ok=True)
        self._unproven = [one for one in self._unproven if one[0] > step - self.n_quiet]

    def _go_back(self, loop: TrainTestLoop, loss: float) -> None:
        what = f"the loss is {loss:.4g} in step {loop.global_step}"
        if self._losses:
            what += f", where {median(self._losses):.4g} is usual"
        if not self._kept:
            raise RunError(
                f"{what}, and rollback has no state yet. Look at the first data, the first weights "
                "and the loss function"
            )
        if self.n_rollbacks == self.max_rollbacks:
            raise RunError(
                f"{what}, and rollback went back {self.n_rollbacks} times. Look at the data of "
                "these steps, lower the learning rate or clip gradients, or allow more: "
                "use('rollback', max_rollbacks=...)"
            )
        target = (self._healthy(loop.global_step) or self._kept[:1])[-1]
        self._kept = [one for one in self._kept if one.step <= target.step]
        self._unproven = [one for one in self._unproven if one[0] <= target.step]
        if self._saving_step is not None and self._saving_step > target.step:
            self._saving_step = None
        self.n_rollbacks += 1
        self._waiting.clear()
        self._is_going_back = True
        _log.warning("rollback: %s. The run goes back to step %d", what, target.step)
        loop.rewind(target.state, "skip")

    @hookimpl(optionalhook=True)
    def checkpoint_is_unproven(self, loop: TrainTestLoop) -> bool:
        """Mark checkpoints as unproven; not one that is saved when the run has ended."""
        self._saving_step = loop.global_step
        return self.n_quiet > 0 and loop.can_take_state

    @hookimpl(optionalhook=True)
    def checkpoint_saved(self, loop: TrainTestLoop, path: Path) -> None:
        """Note a checkpoint that may be marked, to remove the mark when it is proven."""
        if self.n_quiet and self._saving_step is not None:
            self._unproven.append((self._saving_step, path))

    def on_train_end(self, loop: TrainTestLoop) -> None:
        """Take all checkpoints as proven, as no spike can follow them any more."""
        self._prove(math.inf)

    def _scale_rates(self, loop: TrainTestLoop) -> None:
        scale, self._lr_due = self._lr_due, 1.0
        self._lr_scale = self.lr_factor**self.n_rollbacks
        if scale == 1:
            return
        for optimizer in loop.optimizers:
            for group in optimizer.param_groups:
                for key in group.keys() & _RATES:
                    group[key] *= scale
        _scale_scheduler(vars(loop).get("scheduler"), scale)
        loop.hook.rollback_rates_lowered(loop=loop, factor=scale)

    # -- state ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the losses of the window, and what was done so far."""
        return {
            "losses": [*self._losses],
            "waiting": [float(value) for value in self._waiting],
            "n_rollbacks": self.n_rollbacks,
            "lr_scale": self._lr_scale,
            # where no batch has followed yet: the spike was in the last one of an epoch
            "lr_due": self._lr_due,
            "is_going_back": self._is_going_back,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; after going back, what was done so far is kept.

        Args:
            state: what `state_dict` returned.
        """
        self._losses = deque(state["losses"], maxlen=self.window)
        self._waiting = [torch.tensor(value) for value in state["waiting"]]
        if self._is_going_back:
            self._lr_due = self.lr_factor**self.n_rollbacks / state["lr_scale"]
            return
        self.n_rollbacks, self._lr_scale = state["n_rollbacks"], state["lr_scale"]
        self._lr_due = state.get("lr_due", 1.0)  # earlier versions have neither
        self._is_going_back = state.get("is_going_back", False)
        self._kept, self._unproven = [], []


def _scale_scheduler(scheduler: Any, scale: float) -> None:
    """Scale the rates from which a scheduler, and those that it holds, compute others."""
    for name in ("base_lrs", "max_lrs"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * scale for rate in getattr(scheduler, name)])
    for inner in getattr(scheduler, "_schedulers", ()):  # of a SequentialLR or ChainedScheduler
        _scale_scheduler(inner, scale)
