"""Lightning: a module with a training step, and a trainer with callbacks."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torchmetrics.aggregation import MeanMetric

from benchmarks.contender import Contender, override_all
from benchmarks.library import make_accuracy
from benchmarks.task import DECAY, MAX_NORM, N_ACCUMULATED, N_KEPT, Batch, Outcome, Task

BATCH_POINTS = ("on_train_batch_start", "on_train_batch_end")
ALL_POINTS = (
    "on_fit_start",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
)

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class EmptyModule(LightningModule):
    """A module whose training step does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do nothing."""

    def configure_optimizers(self) -> None:
        """Make none."""


class Module(LightningModule):
    """The usual training step.

    Args:
        task: what to train.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.model = task.model

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Compute the loss."""
        inputs, targets = batch
        return self.task.loss_func(self.model(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimizer."""
        return self.task.make_optimizer(self.model.parameters())


class EverydayModule(Module):
    """The usual training step, with metrics."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.mean_loss = MeanMetric(nan_strategy="disable")
        self.accuracy = make_accuracy()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Compute the loss, and update the metrics."""
        inputs, targets = batch
        scores = self.model(inputs)
        loss = self.task.loss_func(scores, targets)
        self.mean_loss.update(loss.detach(), len(targets))
        self.accuracy.update(scores.detach(), targets)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the metrics."""
        self.log_dict({"loss": self.mean_loss.compute(), "accuracy": self.accuracy.compute()})
        self.mean_loss.reset()
        self.accuracy.reset()


def fit(task: Task, module: LightningModule, **options: Any) -> Trainer:
    """Train."""
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=task.n_epochs, **options)
    trainer.fit(module, task.batches)
    return trainer


def run_empty(task: Task, n_components: int, points: tuple[str, ...]) -> None:
    """Train with callbacks that do nothing."""
    empty = override_all(Callback, points)
    fit(task, EmptyModule(), barebones=True, callbacks=[empty() for _ in range(n_components)])


def run_one_component(task: Task) -> None:
    """Train with a callback of two points."""
    run_empty(task, 1, BATCH_POINTS)


def run_ten_components(task: Task) -> None:
    """Train with ten callbacks of all points."""
    run_empty(task, 10, ALL_POINTS)


def run_step(task: Task) -> None:
    """Train."""
    fit(task, Module(task), barebones=True)


def run_everyday(task: Task) -> Outcome:
    """Train with the everyday set."""
    # The averages replace the weights when training ends: those are noted before.
    trainer = fit(
        task,
        EverydayModule(task),
        accumulate_grad_batches=N_ACCUMULATED,
        gradient_clip_val=MAX_NORM,
        precision="bf16-mixed",
        logger=False,
        enable_model_summary=False,
        callbacks=[
            weights := LastWeights(),
            EMAWeightAveraging(decay=DECAY),
            ModelCheckpoint(task.directory, monitor="epoch", mode="max", save_top_k=N_KEPT),
            TQDMProgressBar(refresh_rate=10),
        ],
    )
    averages = [parameter.detach().clone() for parameter in task.model.parameters()]
    task.model.load_state_dict(weights.state)
    metrics = trainer.callback_metrics
    return Outcome(float(metrics["loss"]), float(metrics["accuracy"]), averages)


class LastWeights(Callback):
    """The weights at the end of training."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note them."""
        state = pl_module.model.state_dict()
        self.state = {name: tensor.clone() for name, tensor in state.items()}


CONTENDER = Contender(
    name="Lightning",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
        "everyday": run_everyday,
    },
    distributions=("lightning", "torchmetrics", "tqdm"),
    n_points=2,
    lean=(
        "`Trainer(barebones=True)`, and manual optimization in the loop alone, "
        "with which two of its callback points fire in a batch. In the everyday "
        "set no logger and no summary; metrics are torchmetrics', updated in `training_step` and "
        "logged once an epoch, which costs less than `self.log` in each step; the bar is redrawn "
        "every tenth batch at most. Averages and checkpoints are its own callbacks."
    ),
)
