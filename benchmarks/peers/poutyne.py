"""Poutyne: a model in the manner of Keras around a module of PyTorch, with callbacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from poutyne import Callback, Model

from benchmarks.contender import Contender, override_all
from benchmarks.task import Task

BATCH_POINTS = ("on_train_batch_begin", "on_train_batch_end")
ALL_POINTS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_backward_end",
    "on_train_batch_end",
    "on_epoch_end",
    "on_train_end",
)
NO_METRICS = np.empty(0)


class EmptyModel(Model):
    """A model whose training step does nothing: no public method is one."""

    def _fit_batch(self, x: Any, y: Any, **options: Any) -> tuple[float, Any, None]:
        options["callback"].on_backward_end(options["step"])
        return 0.0, NO_METRICS, None

    def _get_loss(self) -> float:
        return 0.0


def fit(task: Task, model_class: type[Model], callbacks: list[Callback]) -> None:
    """Train."""
    model = model_class(task.model, task.make_optimizer(), task.loss_func)
    model.fit_generator(task.batches, epochs=task.n_epochs, verbose=False, callbacks=callbacks)


def run_one_component(task: Task) -> None:
    """Train with a callback of two points."""
    fit(task, EmptyModel, [override_all(Callback, BATCH_POINTS)()])


def run_ten_components(task: Task) -> None:
    """Train with ten callbacks of all points."""
    empty = override_all(Callback, ALL_POINTS)
    fit(task, EmptyModel, [empty() for _ in range(10)])


def run_step(task: Task) -> None:
    """Train."""
    fit(task, Model, [])


CONTENDER = Contender(
    name="Poutyne",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
    },
    distributions=("poutyne",),
    n_points=3,
    lean=(
        "`fit_generator` with `verbose=False` and no metrics. It reads the loss of each batch. "
        "In the loop alone a private method is overridden, as no public one is the step."
    ),
    lacks={"everyday": "it has no autocast and no averages of weights"},
)
