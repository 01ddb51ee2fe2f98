"""The trainer that callbacks of Lightning get."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from ttl_adapters.batch_counts import is_last_batch, n_batches, n_valid_batches
from ttl_adapters.facade import STOP_FLAG, Facade, Metrics, renamed
from ttl_adapters.lightning_module import Logger, Module, root_device, root_directory
from ttl_core import Group, map_nested, whole_tensor
from ttl_core.files import write_atomically

if TYPE_CHECKING:
    from ttl_adapters.adapter import Adapter
    from ttl_core import TrainTestLoop

FUNCTIONS = {"train": "fit", "valid": "validate", "test": "test", "predict": "predict"}
"""What Lightning calls the kinds of runs."""

HOOKS = (
    *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    *("on_train_batch_end", "on_train_epoch_end", "on_train_end", "on_fit_end", "teardown"),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_exception", "on_validation_start", "on_validation_end"),
    *("on_validation_epoch_start", "on_validation_epoch_end", "on_validation_batch_start"),
    *("on_validation_batch_end", "on_test_start", "on_test_end", "on_test_batch_end"),
    *("on_test_epoch_end", "on_predict_start", "on_predict_end", "on_predict_batch_end"),
)
"""Hooks of a callback, of which any one shows that an object is one."""

INSTEAD = {
    "BasePredictionWriter": "the component prediction-writer",
    "BatchSizeFinder": "a batch size of your choice, or the component batch-schedule",
    "DeviceStatsMonitor": "the components memory and throughput",
    "GradientAccumulationScheduler": "the component grad-accumulation",
    "LearningRateFinder": "the component lr-finder",
    "SpikeDetection": "the component rollback",
    "StochasticWeightAveraging": "the component swa",
    "ThroughputMonitor": "the component throughput",
    "WeightAveraging": "the component ema, or swa",
}
"""What there is in place of callbacks that change how Lightning trains, by class."""

_STAGES = {**FUNCTIONS, "train": "train"}


def _schedulers(loop: TrainTestLoop) -> tuple[SimpleNamespace, ...]:
    scheduler = vars(loop).get("scheduler")
    one = SimpleNamespace(scheduler=scheduler, name=None, interval="step", frequency=1)
    return () if scheduler is None else (one,)


class Trainer(Facade):
    """The trainer that callbacks of Lightning get.

    Args:
        adapter: the component whose callback it is for.
    """

    should_stop = STOP_FLAG
    settable = ("should_stop",)
    instead = {  # noqa: RUF012
        "accumulate_grad_batches": "the component grad-accumulation",
        "callbacks": "loop.components",
        "datamodule": "loop.train_data and loop.valid_data",
        "fit": "loop.train()",
        "limit_train_batches": "the component limit-batches",
        "log_every_n_steps": "the argument every= of loggers",
        "max_time": "the component time-limit",
        "precision": "the component amp",
        "precision_plugin": "the component amp",
        "predict": "loop.predict()",
        "profiler": "the component profiler",
        "test": "loop.test()",
        "validate": "loop.validate(), or the component validate-every",
    }
    computed = {  # noqa: RUF012
        "default_root_dir": root_directory,
        "enable_validation": lambda loop: loop.valid_data is not None,
        "estimated_stepping_batches": lambda loop: loop.n_optim_steps or math.inf,
        "global_rank": lambda loop: loop.group.rank,
        "global_step": lambda loop: loop.global_step,
        "is_global_zero": lambda loop: loop.group.is_main,
        "is_last_batch": is_last_batch,
        "log_dir": root_directory,
        "lr_scheduler_configs": _schedulers,
        "model": lambda loop: loop.model,
        "num_predict_batches": lambda loop: [n_batches(loop, "predict")],
        "num_test_batches": lambda loop: [n_batches(loop, "test")],
        "num_training_batches": lambda loop: n_batches(loop, "train"),
        "num_val_batches": n_valid_batches,
        "optimizers": lambda loop: list(loop.optimizers),
        "predicting": lambda loop: loop.is_predicting,
        "progress_bar_metrics": lambda loop: dict(loop.metrics),
        "testing": lambda loop: loop.is_testing,
        "train_dataloader": lambda loop: loop.train_data,
        "training": lambda loop: loop.is_training,
        "val_dataloaders": lambda loop: loop.valid_data,
        "validating": lambda loop: loop.is_validating,
        "world_size": lambda loop: loop.group.size,
    }

    def __init__(self, adapter: Adapter) -> None:
        super().__init__(
            "trainer",
            adapter.callback,
            _adapter=adapter,
            _metrics=Metrics({}, {}),
            check_val_every_n_epoch=1,
            ckpt_path=None,
            fast_dev_run=False,
            num_sanity_val_batches=[],
            progress_bar_callback=adapter.callback,
            sanity_checking=False,
            val_check_interval=1.0,
        )
        self.set(lightning_module=Module(adapter, self), loggers=[Logger(adapter.callback)])
        self.set(logger=self.loggers[0])

    @property
    def current_epoch(self) -> int:
        """The epoch; in on_train_epoch_end the one that ends."""
        return int(self._loop.epoch_num - self._adapter.n_ahead)

    @property
    def max_epochs(self) -> int:
        """The epoch before which this train() ends; -1 where it counts steps."""
        n_epochs = self._loop.n_epochs
        return -1 if n_epochs is None else self._adapter.first_epoch + n_epochs

    @property
    def max_steps(self) -> int:
        """The step at which this train() ends; -1 where it counts epochs."""
        loop = self._loop
        if loop.n_epochs is not None:
            return -1
        return int(loop.global_step - loop.optim_step_num + loop.n_optim_steps)

    @property
    def callback_metrics(self) -> Metrics:
        """The newest values, as tensors, and those that callbacks have put there."""
        found: Metrics = self._metrics
        values = self._loop.metrics
        found.update((n, torch.as_tensor(v)) for n, v in values.items())
        for style in ("_", "/"):
            prefixes = {"train": f"train{style}", "valid": f"val{style}", "test": f"test{style}"}
            found.aliases.update({renamed(name, prefixes): name for name in values})
        return found

    @property
    def state(self) -> SimpleNamespace:
        """What runs: its function and stage, as texts."""
        desc = self._loop.run_desc
        return SimpleNamespace(fn=FUNCTIONS.get(desc), stage=_STAGES.get(desc))

    @property
    def strategy(self) -> Facade:
        """What Lightning calls the strategy: the device, and the group of processes."""
        # where one process fails, it must not wait for the others
        group = Group() if self._adapter.hook == "on_exception" else self._loop.group

        def reduce_boolean_decision(decision: bool, all: bool = True) -> bool:  # noqa: A002
            return not group.any(not decision) if all else group.any(decision)

        def remove_checkpoint(path: str) -> None:
            if self.is_global_zero:
                Path(path).unlink(missing_ok=True)

        return Facade(
            "trainer.strategy",
            self._callback,
            barrier=lambda name=None: group.barrier(),  # noqa: ARG005
            broadcast=lambda value, src=0: group.broadcast(value),  # noqa: ARG005
            reduce_boolean_decision=reduce_boolean_decision,
            remove_checkpoint=remove_checkpoint,
            root_device=root_device(self._loop),
        )

    @property
    def fit_loop(self) -> Facade:
        """What callbacks of Lightning read of its loop."""
        loop, callback, path = self._loop, self._callback, "trainer.fit_loop"
        batches = Facade(f"{path}.epoch_loop.batch_progress", callback)
        batches.set(is_last_batch=is_last_batch(loop))
        validation = Facade(f"{path}.epoch_loop.val_loop", callback, _has_run=True)
        epoch_loop = Facade(
            f"{path}.epoch_loop",
            callback,
            batch_progress=batches,
            val_loop=validation,
            _batches_that_stepped=loop.global_step,
            _should_check_val_epoch=lambda: loop.valid_data is not None,
        )
        return Facade(path, callback, epoch_loop=epoch_loop, max_epochs=self.max_epochs)

    @property
    def _logger_connector(self) -> Facade:
        return Facade("trainer._logger_connector", self._callback, should_update_logs=True)

    def save_checkpoint(self, filepath: str, weights_only: bool = False) -> None:
        """Write a file with the weights, and the states of optimizers and scheduler.

        Args:
            filepath: the file.
            weights_only: whether to leave out the states of optimizers and scheduler.
        """
        content = map_nested(_whole, checkpoint_of(self))
        if weights_only:
            del content["optimizer_states"], content["lr_schedulers"]
        if self.is_global_zero:
            stream = io.BytesIO()
            torch.save(content, stream)
            path = Path(filepath)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, stream.getvalue())
        self.strategy.barrier()


def _whole(value: Any) -> Any:
    """Return a tensor as one that this process has all of, which all processes do together."""
    return whole_tensor(value) if isinstance(value, torch.Tensor) else value


def bind(trainer: Trainer, loop: TrainTestLoop) -> None:
    """Let a trainer, its module and its logger follow a loop.

    Args:
        trainer: the trainer.
        loop: the loop.
    """
    for part in (trainer, trainer.lightning_module, trainer.logger):
        part.set(_loop=loop)


def checkpoint_of(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint of Lightning holds besides the states of callbacks.

    Args:
        trainer: the trainer.
    """
    loop = vars(trainer)["_loop"]
    if loop is None:
        return {}
    scheduler = vars(loop).get("scheduler")
    return {
        "epoch": trainer.current_epoch,
        "global_step": loop.global_step,
        "state_dict": loop.model.state_dict(),
        "optimizer_states": [each.state_dict() for each in getattr(loop, "optimizers", ())],
        "lr_schedulers": [] if scheduler is None else [scheduler.state_dict()],
    }
