"""The component `lr-schedule`."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from ttl_core import ArgumentError, LoopComponent, StateError, hookimpl
from ttl_core.arguments import describe, number, one_of, whole_number
from ttl_optim.long_warmup import warn_of_long_warmup

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_Shape = Callable[[float, float], float]

_SHAPES: dict[str, _Shape] = {
    # of the share of the steps after the warm-up, from 0 to 1, and the final share of the rate
    "linear": lambda share, final: 1 - (1 - final) * share,
    "cosine": lambda share, final: final + (1 - final) * (1 + math.cos(math.pi * share)) / 2,
}
_SHAPE = ("kind", "warmup", "decay", "final")
"""The arguments that say, with the length, how the factor follows from the step."""

_DECAY = 0.2

_KINDS = ["constant", *_SHAPES, "wsd", "inverse-sqrt"]


class LrSchedule(LoopComponent):
    """A learning rate that follows a schedule by name, with a warm-up, over the length of a run.

    In step i of a train(), counted by `loop.optim_step_num` from 0, the learning rate of each
    parameter group of `loop.optimizers` is its full rate times a factor. In the warm-up of w steps
    that is (i + 1) / w. After it "linear" and "cosine" fall from 1 to `final`, which they would
    reach in the step after the last one, as torch's LinearLR and CosineAnnealingLR do. "wsd", which
    is warm-up, stable, decay, stays at 1 and falls linearly at the end. "inverse-sqrt" is
    sqrt(w / (i + 1)). A train() that ends within the warm-up gives a warning.

    Args:
        kind: "constant", "linear", "cosine", "wsd" or "inverse-sqrt".
        warmup: the length of the warm-up: a number of steps, or a share of all, such as 0.05.
        decay: with "wsd", the length of the decay at the end, in the same way.
        final: with "linear", "cosine" and "wsd", the factor at the end.
        n_steps: the length of the schedule; by default `loop.n_optim_steps`.
        schedule: what a resumed run does if its schedule is another one than that of the state, in
            its length or in another argument: "new" follows the new one from the current step on,
            "saved" keeps the other one; by default that is an error.

    Raises:
        ArgumentError: an argument has an unusable value; in train(), the length is unknown but
            needed, or `loop.scheduler` would change the rates too.
        StateError: a resumed run has another one, and `schedule` does not say what to do.

    Example:
        >>> from ttl_core import TrainTestLoop, use
        >>> from ttl_core.testing import ComponentConformance
        >>> step = use("supervised", loss_func=torch.nn.functional.cross_entropy,
        ...            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0))
        >>> loop = TrainTestLoop(ComponentConformance.make_model(),
        ...                      [step, LrSchedule("linear", warmup=2)],
        ...                      ComponentConformance.make_data(4))
        >>> loop.train(n_epochs=1)
        >>> loop.optimizer.param_groups[0]["lr"]
        0.5
    """

    only_once = True  # a second one would overwrite its rates

    def __init__(
        self,
        kind: Literal["constant", "linear", "cosine", "wsd", "inverse-sqrt"],
        *,
        warmup: float = 0,
        decay: float = _DECAY,
        final: float = 0.0,
        n_steps: int | None = None,
        schedule: Literal["saved", "new"] | None = None,
    ) -> None:
        self.kind = one_of("kind", kind, _KINDS)
        self.warmup = _length("warmup", warmup)
        self.decay = _length("decay", decay)
        self.final = number("final", final, at_least=0)
        if self.final and self.kind in ("constant", "inverse-sqrt"):
            raise ArgumentError(
                f"final is {final!r}, but a schedule of the kind {kind!r} has no end. Leave it "
                "out, or choose 'linear', 'cosine' or 'wsd'"
            )
        if self.decay != _DECAY and self.kind != "wsd":
            raise ArgumentError(
                f"decay is {decay!r}, but only a schedule of the kind 'wsd' has a decay of a "
                f"length of its own, and this one is {kind!r}. Leave it out"
            )
        self.n_steps = None if n_steps is None else whole_number("n_steps", n_steps, at_least=1)
        if schedule is not None:
            one_of("schedule", schedule, ("saved", "new"))
        self.schedule = schedule
        self._length: int | None = None  # of the schedule of this run
        self._is_begun = False

    @hookimpl(wrapper=True)
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Forget the length at the end of the run."""
        try:
            return (yield)
        finally:
            self._is_begun = False

    @hookimpl(wrapper=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Fix the length of the schedule, once all components have set how long the run is."""
        result = yield
        self._begin(loop)
        return result

    @hookimpl(wrapper=True, tryfirst=True)
    def on_optim_step(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Set the learning rates before the step."""
        if not self._is_begun:  # enabled since the run began
            self._begin(loop)
        factor = self.factor(loop.optim_step_num, self._length)
        for optimizer in loop.optimizers:
            for group in optimizer.param_groups:
                full = group["full_lr"] if "full_lr" in group else _note_full_rate(group)
                if isinstance(group["lr"], torch.Tensor):  # which a captured step reads
                    group["lr"].fill_(full * factor)
                else:
                    group["lr"] = full * factor
        return (yield)

    def factor(self, step: int, n_steps: int | None) -> float:
        """Return what the full learning rate is multiplied by in a step.

        Args:
            step: the number of the step, from 0.
            n_steps: the number of all steps; None if it is unknown and not needed.

        Example:
            >>> [LrSchedule("cosine", warmup=2).factor(i, 6) for i in (0, 1, 2, 4)]
            [0.5, 1.0, 1.0, 0.5]
        """
        warmup = _in_steps(self.warmup, n_steps)
        if step < warmup:
            return (step + 1) / warmup
        if self.kind == "inverse-sqrt":
            return math.sqrt(max(warmup, 1) / (step + 1))
        if self.kind == "constant" or n_steps is None:
            return 1.0
        if self.kind == "wsd":
            begin, shape = max(warmup, n_steps - _in_steps(self.decay, n_steps)), _SHAPES["linear"]
        else:
            begin, shape = warmup, _SHAPES[self.kind]
        share = (step - begin) / max(n_steps - begin, 1)
        return shape(min(max(share, 0.0), 1.0), self.final)

    def state_dict(self) -> dict[str, Any]:
        """Return the length of the schedule, and its shape."""
        return {"length": self._length, **{name: getattr(self, name) for name in _SHAPE}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Follow the same schedule, or what `schedule` says.

        Args:
            state: what `state_dict` returned; that of earlier versions has its length alone.

        Raises:
            StateError: it is of another schedule, and `schedule` does not choose one.
        """
        saved = state["length"]
        if self._is_begun and saved != self._length:
            if self.schedule is None:
                raise StateError(
                    f"'lr-schedule' was saved in a run of {saved} steps, and this one has "
                    f"{self._length}. Choose schedule='new' to follow the schedule of the new "
                    "length from here on, or schedule='saved' to keep the other one; or train for "
                    "as long as the saved run"
                )
            if self.schedule == "new":
                return
        shape = {name: state[name] for name in _SHAPE if name in state}
        differing = [name for name in shape if shape[name] != getattr(self, name)]
        if differing and self.schedule is None:
            changes = ", ".join(
                f"{name}={shape[name]!r}, and this one has {getattr(self, name)!r}"
                for name in differing
            )
            raise StateError(
                f"'lr-schedule' was saved with {changes}. Choose schedule='new' to follow the new "
                "schedule from here on, or schedule='saved' to keep the other one"
            )
        if self.schedule == "saved":
            vars(self).update(shape)
        self._length = saved

    def _begin(self, loop: TrainTestLoop) -> None:
        scheduler = getattr(loop, "scheduler", None)
        if scheduler is not None:
            raise ArgumentError(
                f"'lr-schedule' sets the learning rates, and so does loop.scheduler, a "
                f"{type(scheduler).__name__}. Leave one of them out"
            )
        self._length = loop.n_optim_steps if self.n_steps is None else self.n_steps
        shares = isinstance(self.warmup, float) or self.kind not in ("constant", "inverse-sqrt")
        if self._length is None and shares:
            raise ArgumentError(
                f"'lr-schedule' of the kind {self.kind!r} needs the number of optimization steps, "
                "which is unknown, as the data have no length: give it n_steps=, or use "
                "train(n_optim_steps=...)"
            )
        if not loop.has_loaded_state:
            warmup = _in_steps(self.warmup, self._length)
            warn_of_long_warmup("lr-schedule", warmup, loop.n_optim_steps)
        for optimizer in loop.optimizers:
            for group in optimizer.param_groups:
                _note_full_rate(group)
        self._is_begun = True


def _length(name: str, value: Any) -> int | float:
    """Return a number of steps, or a share of all of them."""
    if isinstance(value, float):
        if not 0 <= value <= 1:
            raise ArgumentError(
                f"{name} is {describe(value)}, but has to be a whole number of steps, or a share "
                "of all from 0.0 to 1.0"
            )
        return value
    return whole_number(name, value)


def _in_steps(length: float, n_steps: int | None) -> int:
    return length if isinstance(length, int) else round(length * (n_steps or 0))


def _note_full_rate(group: dict[str, Any]) -> Any:
    """Return the full learning rate of a group, and keep it in the group, if it is not there.

    There it is a setting like others: where a resumed script has another one, the loop asks which
    of the two is meant. It is read from its device once in a run.
    """
    rate = group["lr"]
    return group.setdefault("full_lr", rate.item() if isinstance(rate, torch.Tensor) else rate)
