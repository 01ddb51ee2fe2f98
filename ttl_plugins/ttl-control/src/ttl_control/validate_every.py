"""The component `validate-every`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ttl_core import LoopComponent, RunError, hookimpl
from ttl_core.arguments import whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class ValidateEvery(LoopComponent):
    """Validation in mid-epoch, every so many optimization steps.

    It counts by `loop.global_step`, so that validations are evenly spread over epochs and over
    resumed runs. After the last batch of an epoch the epoch's own validation follows anyway;
    where the loop knows the length of its data, there is no other one before it.

    Args:
        steps: the number of optimization steps from one validation to the next.

    Raises:
        ArgumentError: `steps` is no whole number from 1.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> class Count(LoopComponent):
        ...     def on_epoch_begin(self, loop):
        ...         print(loop.epoch_desc, loop.global_step)
        >>> components = [Count(), ValidateEvery(2)]
        >>> loop = TrainTestLoop(torch.nn.Identity(), components, [0] * 5, [0])
        >>> loop.train(n_epochs=1)
        train 0
        valid 2
        valid 4
        valid 5
    """

    def __init__(self, steps: int) -> None:
        self.steps = whole_number("steps", steps, at_least=1)

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Check that there are validation data.

        Raises:
            RunError: there are none.
        """
        if loop.valid_data is None:
            raise RunError(
                f"validate-every has to validate every {self.steps} steps, but the loop has no "
                "validation data. Give TrainTestLoop valid_data, or disable 'validate-every'"
            )

    # At a safe point every component has used the batch, and a run that is interrupted in the
    # validation can resume with it. First, as components that save or stop need its values.
    @hookimpl(tryfirst=True)
    def on_safe_point(self, loop: TrainTestLoop) -> None:
        """Validate, where a training batch has made the step that is due."""
        if loop.is_training and loop.global_step % self.steps == 0:
            loop.validate()
