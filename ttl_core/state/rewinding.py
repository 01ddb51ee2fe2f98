"""Rewinding: a run continues from an earlier state of itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ttl_core.errors import RunError, StateError
from ttl_core.hooks.failures import StopRun
from ttl_core.state.data_order import Order, state_in_epoch, states_between_epochs
from ttl_core.state.generators import generator_states_of_data
from ttl_core.state.position import TrainingProgress, is_between_steps
from ttl_core.state.protocol import State

if TYPE_CHECKING:
    from ttl_core.hooks.member import Member
    from ttl_core.loop import TrainTestLoop

DataChoice = Literal["replay", "skip"]
"""Which data follow a rewind: those that followed the state, or those that follow now."""

_OF_STATE = ("global_step", "optim_step_num", "has_stepped")
"""What a position has from the state where the data continue: what counts steps, not batches."""


class RewindTarget(NamedTuple):
    """Where a run continues.

    Attributes:
        state: the state, which is not changed.
        rest: the position of the data in an epoch, where that of the state lies between epochs.
        ignored: names of components and loop variables whose state may be missing or unused.
    """

    state: State
    rest: State | None
    ignored: Collection[str]


class RewindRun(StopRun):
    """The exception that travels from rewind() to the train() that continues elsewhere.

    Args:
        target: where it continues.
    """

    def __init__(self, target: RewindTarget) -> None:
        super().__init__()
        self.target = target


def check_rewindable(loop: TrainTestLoop) -> None:
    """Check that a loop can rewind, as it can at a safe point.

    Args:
        loop: the loop.

    Raises:
        RunError: it is not.
    """
    if not is_between_steps(loop):
        raise RunError(
            "rewind() was called outside of a safe point, where components may be halfway through "
            "a batch. Call it in on_safe_point; to start a train() from a state, call "
            "load_state_dict() before it"
        )


def check_same_run(position: State, progress: TrainingProgress) -> None:
    """Check that a position lies within the train() call under way.

    Raises:
        StateError: it does not.
    """
    if position["train_num"] != progress.train_num:
        raise StateError(
            f"the state was taken in train() number {position['train_num']} of its loop, but "
            f"number {progress.train_num} is under way, which rewind() cannot leave. Call "
            "load_state_dict() before train()"
        )
    if position["is_stopped"]:
        raise StateError(
            "the state was taken at the end of a train() that was stopped, from where none "
            "continues. Take it in on_safe_point"
        )


def with_current_data(
    loop: TrainTestLoop, members: Sequence[Member], state: State, now: State, order: Order
) -> tuple[State, State | None]:
    """Return a state with the position of the data replaced by the current one.

    Args:
        loop: the loop.
        members: the members of its list.
        state: the state, which is not changed.
        now: the current position.
        order: what the order of the batches of the newest epoch follows from.

    Returns:
        The state, and the position in the current epoch where the state has none.
    """
    own = state["position"]
    is_same = own["is_trained"] and own["n_epochs_done"] == now["n_epochs_done"]
    if now["is_trained"] and not is_same:
        # behind its last batch: the epoch has to end once more, with what components have of it
        end = state_in_epoch(loop.data, order, vars(loop)["batch_num"] + 1)
        # data with a state would begin another epoch; those left behind the last step are used
        end["is_complete"] = loop.n_epochs is not None or loop.optim_step_num != loop.n_optim_steps
        now = {**now, "is_trained": False, "epoch": end}
    position = {**now, **{name: own[name] for name in _OF_STATE}}
    rest = None
    if own["epoch"] is None:  # then components are restored before on_epoch_begin
        rest, position["epoch"] = position["epoch"], None
    return {
        **state,
        "position": position,
        "data": states_between_epochs(loop),
        "generators": {**state.get("generators", {}), **generator_states_of_data(loop, members)},
    }, rest


def call_until_done(epochs: Callable[[], Any], go_to: Callable[[RewindTarget], None]) -> None:
    """Call the epochs of a train(), and again after each rewind.

    Args:
        epochs: runs the epochs that are left.
        go_to: continues from an earlier state.
    """
    while True:
        try:
            epochs()
            return
        except RewindRun as rewind:
            target = rewind.target
            # iterators of data would live on in frames that have ended, and with them workers
            traceback.clear_frames(rewind.__traceback__)
        go_to(target)
