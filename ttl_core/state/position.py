"""The position of a run: what the loop is doing, and how far a train() call has come."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from ttl_core.arguments import describe, whole_number
from ttl_core.errors import ArgumentError, ConfigurationError, RunError
from ttl_core.state.data_order import Order, state_in_epoch
from ttl_core.state.protocol import State

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop
    from ttl_core.state.resumable_loop import ResumableLoop


class Stage(enum.Enum):
    """What a loop is doing."""

    IDLE = enum.auto()
    """No run is under way."""
    STARTING = enum.auto()
    """The begin point of a run has not ended: a state may still be loaded."""
    RUNNING = enum.auto()
    """Epochs are under way."""
    SAFE_POINT = enum.auto()
    """At a safe point, or behind the last epoch of a train(): a run can resume from here."""
    ENDING = enum.auto()
    """The end point of a run, or on_exception: nothing is left to stop."""
    ENDING_SAFELY = enum.auto()
    """The same behind a safe point: a run can resume from there."""

    @property
    def is_stoppable(self) -> bool:
        """Whether stop() ends a run."""
        return self in (Stage.STARTING, Stage.RUNNING, Stage.SAFE_POINT)

    def check_idle(self, method: str) -> None:
        """Check that no run is under way, as most methods of a loop cannot be called in one.

        Args:
            method: the name of the method.

        Raises:
            RunError: a run is under way.
        """
        if self is not Stage.IDLE:
            raise RunError(
                f"{method}() was called while this loop is running. Only validate() can be"
            )


class StopCause(NamedTuple):
    """Why a run was stopped.

    Attributes:
        component: the name of the component that has called stop(); None if it was none.
        reason: the reason that was given.
    """

    component: str | None
    reason: str | None


@dataclass
class TrainingProgress:
    """Progress within one train() call, besides what the loop variables count.

    Attributes:
        train_num: the number of the train() call of its loop, from 1.
        first_epoch: the value of `epoch_num` when it began.
        first_step: the value of `global_step` when it began.
        n_epochs_done: how many of its epochs have ended.
        is_trained: whether the training part of the current epoch has ended.
        has_stepped: whether the last batch, if there was one, made an optimization step.
        is_stopped: whether stop() has ended the call.
        is_within_safe_point: whether a safe point is under way, in which validate() was called.
    """

    train_num: int = 0
    first_epoch: int = 0
    first_step: int = 0
    n_epochs_done: int = 0
    is_trained: bool = False
    has_stepped: bool = True
    is_stopped: bool = False
    is_within_safe_point: bool = False


OF_BATCH = ("batch", "batch_num", "scores", "loss")
"""The variables that belong to a batch, and are unset when an epoch begins."""

_COUNTERS = ("epoch_num", "global_step", "optim_step_num")


def position_of(loop: TrainTestLoop, progress: TrainingProgress, order: Order | None) -> State:
    """Return the position of a run, at a safe point or behind its last one.

    Args:
        loop: the loop.
        progress: the progress of its train() call.
        order: what the order of the batches of the current epoch follows from.
    """
    counters = {name: getattr(loop, name) for name in _COUNTERS}
    position = {**asdict(progress), **counters, "epoch": None}
    position["is_within_safe_point"] = loop.is_validating
    data = training_data(loop)
    if data is not None:  # inside an epoch, a safe point follows a step
        position["has_stepped"] = True
        n_batches = (loop._interrupted or vars(loop))["batch_num"] + 1
        position["epoch"] = state_in_epoch(data, order or {}, n_batches)
    return position


def is_between_steps(loop: TrainTestLoop) -> bool:
    """Return whether a loop is at a safe point, and not in a validate() that is called there."""
    return loop._stage is Stage.SAFE_POINT and not loop._interrupted


def training_data(loop: ResumableLoop) -> Any:
    """Return the data of the training epoch under way, also during validate(); None outside one."""
    training = loop._interrupted or vars(loop)
    return training["_data"] if training["is_training"] else None


def restore_position(loop: TrainTestLoop, progress: TrainingProgress, position: State) -> None:
    """Set the counters and the progress of a run to those of a position.

    Args:
        loop: the loop.
        progress: the progress of its train() call.
        position: what `position_of` returned.
    """
    for field in fields(progress):
        setattr(progress, field.name, position.get(field.name, field.default))
    for name in _COUNTERS:
        setattr(loop, name, position[name])


def end_of_train(loop: TrainTestLoop, progress: TrainingProgress) -> State:
    """Return what a train() call that has ended left, besides the model and the components.

    Args:
        loop: the loop.
        progress: the progress of the call.
    """
    counters = {name: getattr(loop, name) for name in _COUNTERS}
    return {"train_num": progress.train_num, **counters, "metrics": dict(loop.metrics)}


def restore_end_of_train(loop: TrainTestLoop, state: State, train_num: int) -> None:
    """Restore what a train() call that is skipped had left, besides the model and the components.

    Args:
        loop: the loop.
        state: a state that was taken in a later call.
        train_num: the number of the call.
    """
    position = state["position"]
    left = {"metrics": state["metrics"]}
    if position["train_num"] == train_num + 1:  # all that is known from states of older versions
        left |= {"epoch_num": position["first_epoch"], "global_step": position["first_step"]}
    for record in state.get("earlier", ()):
        if record["train_num"] == train_num:
            left = record
    for name in _COUNTERS:
        setattr(loop, name, left.get(name, getattr(loop, name)))
    loop.metrics = left["metrics"]


def check_reachable(
    position: State, train_num: int, n_epochs: int | None, n_optim_steps: int | None
) -> None:
    """Check that a train() call comes to a position.

    Args:
        position: what `position_of` returned.
        train_num: the number of the call.
        n_epochs: how many epochs it has.
        n_optim_steps: how many optimization steps it has.

    Raises:
        RunError: it is a later call.
        ArgumentError: it has fewer epochs or steps than that.
    """
    if position["train_num"] < train_num:
        raise RunError(
            f"the state was taken in train() number {position['train_num']} of its loop, but was "
            f"loaded in the middle of number {train_num}. Load it before train() is called, which "
            "then resumes that one"
        )
    is_begun = position["epoch"] is not None or position["is_trained"]
    reached = {
        "n_epochs": (n_epochs, position["n_epochs_done"] + is_begun, "epochs"),
        "n_optim_steps": (n_optim_steps, position["optim_step_num"], "optimization steps"),
    }
    for name, (given, done, what) in reached.items():
        if given is not None and given < done and not position["is_stopped"]:
            raise ArgumentError(
                f"{name} is {given}, but the state was taken after {done} {what} of this train() "
                f"had begun, and they count from its beginning. Give {name}={done} or more, or "
                "start a new run: with 'checkpoint', in another directory or with resume='never'"
            )


def check_length(
    n_epochs: int | None, n_optim_steps: int | None, **unknown: object
) -> tuple[int | None, int | None]:
    """Return the length of a train() call, of which exactly one measure has to be given.

    Args:
        n_epochs: the number of epochs.
        n_optim_steps: the number of optimization steps.
        **unknown: arguments that train() does not have.

    Raises:
        ConfigurationError: there are such arguments.
        ArgumentError: not exactly one is given, or it is no whole number from 0.
    """
    for name, value in unknown.items():
        likely = "n_optim_steps" if "step" in name else "n_epochs"
        raise ConfigurationError(
            f"train() has no argument {name!r}. Write train({likely}={describe(value)})"
        )
    if (n_epochs is None) == (n_optim_steps is None):
        raise ArgumentError("train() takes exactly one of n_epochs and n_optim_steps")
    if n_epochs is not None:
        return whole_number("n_epochs", n_epochs), None
    return None, whole_number("n_optim_steps", n_optim_steps)


def check_steps_made(n_steps: int, epoch_num: int, n_optim_steps: int | None) -> None:
    """Check that a training epoch brought a train() call nearer to its end.

    Args:
        n_steps: the number of optimization steps that the epoch made.
        epoch_num: the number of the epoch.
        n_optim_steps: the number of steps that the call has; None if it counts epochs.

    Raises:
        RunError: the call counts steps, and the epoch made none.
    """
    if n_optim_steps is not None and n_steps == 0:
        raise RunError(
            f"train epoch {epoch_num} made no optimization step, so "
            f"n_optim_steps={n_optim_steps} would never be reached: its data were empty, or "
            "is_stepping was cleared in every batch"
        )
