"""The callback points in firing order: the contract between the loop and its components."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

hookspec = pluggy.HookspecMarker("ttl")
hookimpl = pluggy.HookimplMarker("ttl")


class CallbackPoints:
    """The points at which the loop calls its components."""

    @hookspec
    def around_run(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Surround a train(), test() or predict(), or a validate() outside of them. Wrappers only.

        A component that is enabled in the middle of a run enters it at the next hook call.
        """
        return (yield)

    @hookspec
    def on_train_begin(self, loop: TrainTestLoop) -> object:
        """Set up training. Fires once in a train(), before its first epoch."""
        return None

    @hookspec
    def on_test_begin(self, loop: TrainTestLoop) -> object:
        """Set up testing. Fires once in a test(), before its epoch."""
        return None

    @hookspec
    def on_predict_begin(self, loop: TrainTestLoop) -> object:
        """Set up prediction. Fires once in a predict(), before its epoch."""
        return None

    @hookspec
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Surround each epoch of every phase. Wrappers only.

        It may replace `loop.data` before its yield.
        A component that is enabled in the middle of an epoch enters it at the next hook call.
        """
        return (yield)

    @hookspec
    def on_epoch_begin(self, loop: TrainTestLoop) -> object:
        """Prepare an epoch. Fires before its first batch, but not in prediction.

        It may replace `loop.data`.
        """
        return None

    @hookspec
    def on_grads_reset(self, loop: TrainTestLoop) -> object:
        """Clear the gradients. Fires in training, before the batch that follows a step."""
        return None

    @hookspec
    def on_batch_begin(self, loop: TrainTestLoop) -> object:
        """Prepare `loop.batch`. Fires at the start of each batch."""
        return None

    @hookspec
    def on_forward_pass(self, loop: TrainTestLoop) -> object:
        """Compute `loop.scores` from `loop.batch`. Fires in each batch, and in recompute()."""
        return None

    @hookspec
    def on_loss_compute(self, loop: TrainTestLoop) -> object:
        """Compute `loop.loss` from `loop.scores`. Fires in each batch, but not in prediction."""
        return None

    @hookspec
    def on_backward_pass(self, loop: TrainTestLoop) -> object:
        """Compute gradients from `loop.loss`. Fires in each training batch."""
        return None

    @hookspec
    def on_optim_step(self, loop: TrainTestLoop) -> object:
        """Update the parameters. Fires in each training batch whose `is_stepping` is still set."""
        return None

    @hookspec
    def on_batch_end(self, loop: TrainTestLoop) -> object:
        """Use the results of the batch. Fires at the end of each batch."""
        return None

    @hookspec
    def on_epoch_end(self, loop: TrainTestLoop) -> object:
        """Use the results of the epoch. Fires after its last batch, but not in prediction."""
        return None

    @hookspec
    def on_safe_point(self, loop: TrainTestLoop) -> object:
        """Save, stop or rewind: everything is up to date here. Fires only inside train().

        It fires after a training batch that stepped (unless it is known to be the last of its
        epoch), after each training epoch, and after its validation once `epoch_num` has counted
        the epoch. Implementations read state and may stop or rewind; they change nothing else. What
        one logs here, or keeps for its own state, is saved by those that are called later, and lost
        otherwise in a run that resumes: it has to be `tryfirst`, or stand before them in the list.
        """
        return None

    @hookspec
    def on_train_end(self, loop: TrainTestLoop) -> object:
        """Finish training. Fires once in a train(), also after stop()."""
        return None

    @hookspec
    def on_test_end(self, loop: TrainTestLoop) -> object:
        """Finish testing. Fires once in a test(), also after stop()."""
        return None

    @hookspec
    def on_predict_end(self, loop: TrainTestLoop) -> object:
        """Finish prediction. Fires once in a predict(), also after stop()."""
        return None

    @hookspec
    def on_log(self, loop: TrainTestLoop, metrics: dict[str, Any], level: str) -> object:
        """Use logged values. Fires at each call of `loop.log`.

        After a rewind, values of the same steps are logged again: what consumers keep is a part
        of their state, or is removed when an earlier state is loaded.

        Args:
            loop: the loop.
            metrics: values by full name ("train/loss"); tensors are detached and not to be
                written to.
            level: "batch" or "epoch".
        """
        return None

    @hookspec
    def on_exception(self, loop: TrainTestLoop, exception: BaseException) -> object:
        """React to a failure. Fires once in a run that is about to fail with `exception`.

        It is called on every component, even if one of them fails in it.
        """
        return None


POINTS: tuple[str, ...] = tuple(name for name in vars(CallbackPoints) if not name.startswith("_"))
"""The names of all core points, in firing order."""


def since(point: str) -> str:
    """Return the version of ttl-core that introduced a callback point."""
    return _ADDED_LATER.get(point, "0.1")


_ADDED_LATER: dict[str, str] = {}
