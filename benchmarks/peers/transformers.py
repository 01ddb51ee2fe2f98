"""The Trainer of Hugging Face transformers, with accelerate."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torchmetrics.aggregation import MeanMetric
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from benchmarks.contender import Contender, override_all
from benchmarks.library import averages_of, make_accuracy, make_averages
from benchmarks.task import (
    BATCH_SIZE,
    MAX_NORM,
    N_ACCUMULATED,
    N_KEPT,
    Batch,
    Loader,
    Outcome,
    Task,
)

BATCH_POINTS = ("on_step_begin", "on_step_end")
ALL_POINTS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_step_end",
    "on_epoch_end",
    "on_train_end",
)

logging.set_verbosity_error()
warnings.filterwarnings("ignore", module="transformers|accelerate")


class TaskTrainer(Trainer):
    """A trainer of a plain module on the batches of a task.

    Args:
        task: what to train.
        optimizer: the optimizer.
        callbacks: callbacks besides those of the trainer itself.
        **options: training arguments.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        callbacks: list[TrainerCallback],
        **options: Any,
    ) -> None:
        self.task = task
        arguments = {
            "output_dir": str(task.directory),
            "num_train_epochs": task.n_epochs,
            "per_device_train_batch_size": BATCH_SIZE,
            "use_cpu": True,
            "max_grad_norm": 0.0,
            "logging_strategy": "no",
            "save_strategy": "no",
            "disable_tqdm": True,
            "report_to": "none",
        }
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        super().__init__(
            task.model,
            TrainingArguments(**(arguments | options)),
            callbacks=callbacks,
            optimizers=(optimizer, schedule),
        )

    def get_train_dataloader(self) -> Loader:
        """Return the batches."""
        return Loader(self.task.batches)

    def compute_loss(
        self, model: torch.nn.Module, inputs: Batch, *arguments: Any, **options: Any
    ) -> torch.Tensor:
        """Compute the loss."""
        return self.task.loss_func(model(inputs[0]), inputs[1])


class EmptyTrainer(TaskTrainer):
    """A trainer whose training step does nothing."""

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Return a loss."""
        return self.no_loss

    no_loss = torch.zeros(())


class EmptyOptimizer(torch.optim.SGD):
    """An optimizer that does nothing."""

    def step(self, closure: Any = None) -> None:
        """Do nothing."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing."""


class EverydayTrainer(TaskTrainer):
    """A trainer with metrics."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.mean_loss = MeanMetric(nan_strategy="disable")
        self.accuracy = make_accuracy()

    def compute_loss(
        self, model: torch.nn.Module, inputs: Batch, *arguments: Any, **options: Any
    ) -> torch.Tensor:
        """Compute the loss, and update the metrics."""
        inputs, targets = inputs
        scores = model(inputs)
        loss = self.task.loss_func(scores, targets)
        self.mean_loss.update(loss.detach(), len(targets))
        self.accuracy.update(scores.detach(), targets)
        return loss


class EpochEnd(TrainerCallback):
    """Metrics that are computed when an epoch ends.

    Args:
        trainer: what holds the metrics.
    """

    def __init__(self, trainer: EverydayTrainer) -> None:
        self.trainer = trainer
        self.values: dict[str, float] = {}

    def on_epoch_end(self, *arguments: Any, **options: Any) -> None:
        """Compute them."""
        trainer = self.trainer
        self.values = {
            "loss": float(trainer.mean_loss.compute()),
            "accuracy": float(trainer.accuracy.compute()),
        }
        trainer.mean_loss.reset()
        trainer.accuracy.reset()


class Averages(TrainerCallback):
    """Moving averages of the weights.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.averaged = make_averages(model)

    def on_step_end(self, *arguments: Any, model: torch.nn.Module, **options: Any) -> None:
        """Update them after a step."""
        self.averaged.update_parameters(model)


def run_empty(task: Task, n_components: int, points: tuple[str, ...]) -> None:
    """Train with callbacks that do nothing."""
    empty = override_all(TrainerCallback, points)
    optimizer = EmptyOptimizer(task.model.parameters())
    EmptyTrainer(task, optimizer, [empty() for _ in range(n_components)]).train()


def run_one_component(task: Task) -> None:
    """Train with a callback of two points."""
    run_empty(task, 1, BATCH_POINTS)


def run_ten_components(task: Task) -> None:
    """Train with ten callbacks of all points."""
    run_empty(task, 10, ALL_POINTS)


def run_step(task: Task) -> None:
    """Train."""
    TaskTrainer(task, task.make_optimizer(), []).train()


def run_everyday(task: Task) -> Outcome:
    """Train with the everyday set."""
    trainer = EverydayTrainer(
        task,
        task.make_optimizer(),
        [averages := Averages(task.model)],
        gradient_accumulation_steps=N_ACCUMULATED,
        max_grad_norm=MAX_NORM,
        bf16=True,
        disable_tqdm=False,
        save_strategy="epoch",
        save_total_limit=N_KEPT,
    )
    trainer.add_callback(epoch_end := EpochEnd(trainer))
    trainer.train()
    return Outcome(**epoch_end.values, averages=averages_of(averages.averaged))


CONTENDER = Contender(
    name="transformers Trainer",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
        "everyday": run_everyday,
    },
    distributions=("transformers", "accelerate", "tqdm"),
    n_points=4,
    lean=(
        "No logging, no reports, no saving, no bar and no clipping where these are not measured; "
        "a constant learning rate; batches come without a sampler. Metrics are torchmetrics' and "
        "the averages torch's, in a `compute_loss` and callbacks of the user's own, as it has "
        "none in training; checkpoints do not hold the averages."
    ),
)
