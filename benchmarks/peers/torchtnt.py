"""TorchTNT: a unit with a training step, callbacks around it, and AutoUnit for the usual one."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics.aggregation import MeanMetric
from torchtnt.framework.auto_unit import AutoUnit, SWAParams, TrainStepResults
from torchtnt.framework.callback import Callback
from torchtnt.framework.callbacks import DistributedCheckpointSaver, TQDMProgressBar
from torchtnt.framework.state import State
from torchtnt.framework.train import train
from torchtnt.framework.unit import TrainUnit

from benchmarks.contender import Contender, override_all
from benchmarks.library import averages_of, make_accuracy
from benchmarks.task import DECAY, MAX_NORM, N_ACCUMULATED, N_KEPT, Batch, Outcome, Task

BATCH_POINTS = ("on_train_step_start", "on_train_step_end")
ALL_POINTS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_get_next_batch_end",
    *BATCH_POINTS,
    "on_train_epoch_end",
    "on_train_end",
)


class EmptyUnit(TrainUnit[Batch]):
    """A unit that does nothing."""

    def train_step(self, state: State, data: Batch) -> None:
        """Do nothing."""


class Unit(AutoUnit[Batch]):
    """The usual training step.

    Args:
        task: what to train.
        **options: those of AutoUnit.
    """

    def __init__(self, task: Task, **options: Any) -> None:
        self.task = task
        super().__init__(module=task.model, device=torch.device("cpu"), **options)

    def configure_optimizers_and_lr_scheduler(
        self, module: torch.nn.Module
    ) -> tuple[torch.optim.Optimizer, None]:
        """Make the optimizer."""
        return self.task.make_optimizer(module.parameters()), None

    def compute_loss(self, state: State, data: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores and loss."""
        inputs, targets = data
        scores = self.module(inputs)
        return self.task.loss_func(scores, targets), scores


class EverydayUnit(Unit):
    """The usual training step, with metrics."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__(task, **options)
        self.mean_loss = MeanMetric(nan_strategy="disable")
        self.accuracy = make_accuracy()
        self.values: dict[str, float] = {}

    def on_train_step_end(
        self, state: State, data: Batch, step: int, results: TrainStepResults
    ) -> None:
        """Update the metrics; the loss is that of AutoUnit, divided for the accumulation."""
        _, targets = data
        self.mean_loss.update(results.loss.detach() * N_ACCUMULATED, len(targets))
        self.accuracy.update(results.outputs.detach(), targets)

    def on_train_epoch_end(self, state: State) -> None:
        """Compute the metrics."""
        super().on_train_epoch_end(state)
        self.values = {
            "loss": float(self.mean_loss.compute()),
            "accuracy": float(self.accuracy.compute()),
        }
        self.mean_loss.reset()
        self.accuracy.reset()


def run_empty(task: Task, n_components: int, points: tuple[str, ...]) -> None:
    """Train with callbacks that do nothing."""
    empty = override_all(Callback, points)
    callbacks = [empty() for _ in range(n_components)]
    train(EmptyUnit(), task.batches, max_epochs=task.n_epochs, callbacks=callbacks)


def run_one_component(task: Task) -> None:
    """Train with a callback of two points."""
    run_empty(task, 1, BATCH_POINTS)


def run_ten_components(task: Task) -> None:
    """Train with ten callbacks of all points."""
    run_empty(task, 10, ALL_POINTS)


def run_step(task: Task) -> None:
    """Train."""
    train(Unit(task), task.batches, max_epochs=task.n_epochs)


def run_everyday(task: Task) -> Outcome:
    """Train with the everyday set."""
    unit = EverydayUnit(
        task,
        precision="bf16",
        gradient_accumulation_steps=N_ACCUMULATED,
        clip_grad_norm=MAX_NORM,
        step_lr_interval="step",
        swa_params=SWAParams(
            warmup_steps_or_epochs=0,
            step_or_epoch_update_freq=1,
            averaging_method="ema",
            ema_decay=DECAY,
        ),
    )
    callbacks = [
        TQDMProgressBar(),
        DistributedCheckpointSaver(
            str(task.directory), save_every_n_epochs=1, keep_last_n_checkpoints=N_KEPT
        ),
    ]
    train(unit, task.batches, max_epochs=task.n_epochs, callbacks=callbacks)
    return Outcome(**unit.values, averages=averages_of(unit.swa_model))


CONTENDER = Contender(
    name="TorchTNT",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
        "everyday": run_everyday,
    },
    distributions=("torchtnt", "tqdm"),
    n_points=3,
    lean=(
        "A `TrainUnit` for the loop alone, else `AutoUnit`, without a timer. Accumulation, "
        "clipping, bf16, averages, bar and checkpoints are its own; metrics are torchmetrics'."
    ),
)
