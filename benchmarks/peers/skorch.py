"""skorch: an estimator of scikit-learn's kind around a module, with callbacks."""

from __future__ import annotations

from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.utils.data import Dataset

from benchmarks.contender import Contender, override_all
from benchmarks.task import LEARNING_RATE, LossFunction, Task

BATCH_POINTS = ("on_batch_begin", "on_batch_end")
ALL_POINTS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_grad_computed",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
)
DEFAULT_CALLBACKS = (
    "callbacks__epoch_timer",
    "callbacks__train_loss",
    "callbacks__valid_loss",
    "callbacks__print_log",
)
NO_LOSS = {"loss": torch.zeros(()), "y_pred": None}


class EmptyNet(NeuralNet):
    """An estimator whose training step does nothing."""

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Do what every step has to."""
        self.notify("on_grad_computed", named_parameters=(), batch=batch, training=True)
        return NO_LOSS


class Criterion(torch.nn.Module):
    """A loss function as the module that skorch asks for."""

    def __init__(self, loss_func: LossFunction) -> None:
        super().__init__()
        self.loss_func = loss_func

    def forward(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Compute the loss."""
        return self.loss_func(scores, targets)


def fit(task: Task, net_class: type[NeuralNet], callbacks: list[Callback]) -> None:
    """Train."""
    net = net_class(
        task.model,
        criterion=Criterion(task.loss_func),
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        max_epochs=task.n_epochs,
        iterator_train=lambda dataset, **_: task.batches,
        train_split=None,
        callbacks=callbacks,
        verbose=0,
        **dict.fromkeys(DEFAULT_CALLBACKS),
    )
    net.fit(Dataset(), y=None)


def run_one_component(task: Task) -> None:
    """Train with a callback of two points."""
    fit(task, EmptyNet, [override_all(Callback, BATCH_POINTS)()])


def run_ten_components(task: Task) -> None:
    """Train with ten callbacks of all points."""
    empty = override_all(Callback, ALL_POINTS)
    fit(task, EmptyNet, [empty() for _ in range(10)])


def run_step(task: Task) -> None:
    """Train."""
    fit(task, NeuralNet, [])


CONTENDER = Contender(
    name="skorch",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
    },
    distributions=("skorch",),
    n_points=3,
    lean=(
        "No validation split, no default callbacks, `verbose=0`, and an `iterator_train` that "
        "hands out the batches. It reads the loss of each batch into its history."
    ),
    lacks={
        "everyday": "it has no accumulation of gradients, no autocast and no averages of weights"
    },
)
