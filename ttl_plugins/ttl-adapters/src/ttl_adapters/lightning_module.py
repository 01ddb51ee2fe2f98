"""The module and the logger that callbacks of Lightning get."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ttl_adapters.facade import Facade
from ttl_core import RunError

if TYPE_CHECKING:
    from ttl_adapters.adapter import Adapter
    from ttl_core import TrainTestLoop


def root_device(loop: TrainTestLoop) -> torch.device:
    """Return the device of the first parameter of the model."""
    parameter = next(loop.model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def root_directory(loop: TrainTestLoop) -> str:
    """Return the folder of the run, else the current directory."""
    return str(getattr(loop, "run_folder", os.getcwd()))


def _without_phase(loop: TrainTestLoop, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without the phase in their names, which the loop adds inside an epoch."""
    is_in_epoch = loop.is_training or loop.is_validating or loop.is_testing
    phase = f"{loop.epoch_desc}/" if is_in_epoch else ""
    return {name.removeprefix(phase): value for name, value in metrics.items()}


class Logger(Facade):
    """The logger that callbacks of Lightning get, which logs by `loop.log`.

    Args:
        callback: the callback.
    """

    instead = {"experiment": "a logger of ttl, such as the component tensorboard"}  # noqa: RUF012

    def __init__(self, callback: object) -> None:
        super().__init__("trainer.logger", callback, group_separator="/", name="", version="")

    save_dir = property(lambda self: root_directory(self._loop))

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values; their step is that of the loop.

        Args:
            metrics: the values by name.
            step: not used.
        """
        self._loop.log(_without_phase(self._loop, metrics))

    def after_save_checkpoint(self, checkpoint_callback: object) -> None:
        """Do nothing, as no logger of ttl uploads files.

        Args:
            checkpoint_callback: not used.
        """


class Module(Facade):
    """The module that callbacks of Lightning get: the model, with what Lightning adds to one.

    Args:
        adapter: the component whose callback it is for.
        trainer: the trainer.
    """

    instead = {  # noqa: RUF012
        "hparams": "an attribute of the model",
        "manual_backward": "a step of your own, on the page how-to/own-step",
        "save_hyperparameters": "the component run-folder, which records what runs",
    }
    computed = {  # noqa: RUF012
        "device": root_device,
        "global_step": lambda loop: loop.global_step,
    }

    def __init__(self, adapter: Adapter, trainer: Facade) -> None:
        constants = {"automatic_optimization": True, "example_input_array": None, "_trainer": None}
        super().__init__("pl_module", adapter.callback, _adapter=adapter, trainer=trainer)
        self.set(**constants)

    current_epoch = property(lambda self: self.trainer.current_epoch)
    logger = property(lambda self: self.trainer.logger)

    def __getattr__(self, name: str) -> Any:
        loop = vars(self)["_loop"]
        if name not in self.computed and hasattr(loop.model, name):
            return getattr(loop.model, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._loop.model, name, value)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the model."""
        return self._loop.model(*arguments, **keywords)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.nn.Module:
        model: torch.nn.Module = copy.deepcopy(self._loop.model, memo)
        return model

    def optimizers(self) -> Any:
        """Return the optimizer, or a list of several."""
        several = self.trainer.optimizers
        return several[0] if len(several) == 1 else several

    def lr_schedulers(self) -> Any:
        """Return the scheduler; None where there is none."""
        return vars(self._loop).get("scheduler")

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool = True,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        batch_size: int | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log a value by `loop.log`: at batch level in hooks of batches, else at epoch level.

        Args:
            name: its name, to which the loop adds the phase inside an epoch.
            value: the value.
            prog_bar: not used.
            logger: not used.
            on_step: not used.
            on_epoch: whether the mean over the epoch is wanted, which is an error.
            batch_size: not used.
            rank_zero_only: not used.

        Raises:
            RunError: a mean over an epoch is wanted, as it is by default in evaluation.
        """
        self.log_dict({name: value}, on_epoch=on_epoch)

    def log_dict(
        self, dictionary: Mapping[str, Any], on_epoch: bool | None = None, **options: Any
    ) -> None:
        """Log several values.

        Args:
            dictionary: the values by name.
            on_epoch: as for `log`.
            **options: those of `log`.

        Raises:
            RunError: a mean over an epoch is wanted, as it is by default in evaluation.
        """
        loop, hook = self._loop, self._adapter.hook
        is_of_batch = any(word in hook for word in ("batch", "backward", "before"))
        if is_of_batch and (on_epoch or not loop.is_training):
            raise RunError(
                f"{type(self._callback).__name__} logs {', '.join(dictionary)} in {hook}, as a "
                "mean over the epoch, which ttl-adapters does not compute. Log it in a hook of "
                "epochs, or add a metric to the component metrics"
            )
        loop.log(_without_phase(loop, dictionary), level="batch" if is_of_batch else "epoch")
