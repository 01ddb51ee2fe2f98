"""Keras 3 on its PyTorch backend."""

from __future__ import annotations

import os
from typing import Any

import torch

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when Keras is imported

import keras

from benchmarks.contender import Contender, override_all
from benchmarks.task import LEARNING_RATE, N_CLASSES, N_HIDDEN, N_INPUTS, Loader, Task

# Keras adds it before the correction of the bias, which makes it larger in the first steps: this
# comes closest to torch's 1e-8 in those that are compared.
EPSILON = 2.5e-9

BATCH_POINTS = ("on_train_batch_begin", "on_train_batch_end")
ALL_POINTS = ("on_train_begin", "on_epoch_begin", *BATCH_POINTS, "on_epoch_end", "on_train_end")


class EmptyModel(keras.Model):
    """A model whose training step does nothing."""

    def call(self, inputs: Any) -> Any:
        """Return the inputs."""
        return inputs

    def train_step(self, data: Any) -> dict[str, Any]:
        """Do nothing."""
        return {}


def run_empty(task: Task, n_components: int, points: tuple[str, ...]) -> None:
    """Train with callbacks that do nothing."""
    empty = override_all(keras.callbacks.Callback, points)
    callbacks = [empty() for _ in range(n_components)]
    model = EmptyModel()
    model.compile(jit_compile=False)
    model.fit(Loader(task.batches), epochs=task.n_epochs, verbose=0, callbacks=callbacks)


def run_one_component(task: Task) -> None:
    """Train with a callback of two points."""
    run_empty(task, 1, BATCH_POINTS)


def run_ten_components(task: Task) -> None:
    """Train with ten callbacks of all points."""
    run_empty(task, 10, ALL_POINTS)


def run_step(task: Task) -> None:
    """Train a network of Keras' own layers, with the weights of the task's."""
    linear = [module for module in task.model if isinstance(module, torch.nn.Linear)]
    model = keras.Sequential(
        [
            keras.layers.Input((N_INPUTS,)),
            keras.layers.Dense(N_HIDDEN, activation="relu"),
            keras.layers.Dense(N_CLASSES),
        ]
    )
    model.set_weights(
        [w.detach().numpy() for layer in linear for w in (layer.weight.T, layer.bias)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
        loss=lambda targets, scores: task.loss_func(scores, targets.long()),  # they come as floats
        jit_compile=False,
    )
    model.fit(Loader(task.batches), epochs=task.n_epochs, verbose=0)
    with torch.no_grad():
        for layer, dense in zip(linear, model.layers, strict=True):
            layer.weight.copy_(dense.kernel.value.T)
            layer.bias.copy_(dense.bias.value)


CONTENDER = Contender(
    name="Keras 3",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
    },
    distributions=("keras",),
    n_points=2,
    lean=(
        "The PyTorch backend, `jit_compile=False`, `verbose=0`, no metrics, and the network in "
        "layers of its own; its Adam adds epsilon at another place."
    ),
    lacks={
        "everyday": (
            "its mixed precision casts whole layers, and its accumulation and averages belong to "
            "the optimizer: it would be other work"
        )
    },
)
