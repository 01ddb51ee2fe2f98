"""ttl: with the component `supervised`, and with a component of the user's own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from rich.console import Console

from benchmarks.contender import Contender, override_all
from benchmarks.library import Screen, averages_of, make_accuracy
from benchmarks.task import DECAY, LEARNING_RATE, MAX_NORM, N_ACCUMULATED, N_KEPT, Outcome, Task
from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.hookspecs import POINTS

BATCH_POINTS = ("on_batch_begin", "on_batch_end")
ALL_POINTS = [point for point in POINTS if not point.startswith("around_")]


class Step(LoopComponent):
    """The training step of a user, as a component."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Make the optimizer."""
        loop.optimizer = self.task.make_optimizer()

    def on_grads_reset(self, loop: TrainTestLoop) -> None:
        """Clear the gradients."""
        loop.optimizer.zero_grad()

    def on_forward_pass(self, loop: TrainTestLoop) -> None:
        """Compute scores."""
        loop.scores = loop.model(loop.batch[0])

    def on_loss_compute(self, loop: TrainTestLoop) -> None:
        """Compute the loss."""
        loop.loss = self.task.loss_func(loop.scores, loop.batch[1])

    def on_backward_pass(self, loop: TrainTestLoop) -> None:
        """Compute gradients."""
        loop.loss.backward()

    def on_optim_step(self, loop: TrainTestLoop) -> None:
        """Update the weights."""
        loop.optimizer.step()


def make_supervised(task: Task) -> Any:
    """Return the component that takes training steps."""
    optimizer = partial(torch.optim.Adam, lr=LEARNING_RATE)
    return use("supervised", loss_func=task.loss_func, optimizer=optimizer)


def run_empty(task: Task, n_components: int, points: list[str]) -> None:
    """Train with components that do nothing."""
    empty = override_all(LoopComponent, points)
    TrainTestLoop(task.model, [empty() for _ in range(n_components)], task.batches).train(
        task.n_epochs
    )


def run_step(task: Task, make_step: Any) -> None:
    """Train."""
    TrainTestLoop(task.model, [make_step(task)], task.batches).train(task.n_epochs)


def run_everyday(task: Task, make_step: Any) -> Outcome:
    """Train with the everyday set."""
    components = [
        make_step(task),
        use("grad-accumulation", every=N_ACCUMULATED),
        use("grad-clip", max_norm=MAX_NORM),
        use("amp", dtype="bf16"),
        use("ema", decay=DECAY),
        use("metrics", accuracy=make_accuracy()),
        use("progress", console=Console(file=Screen())),
        use("checkpoint", directory=task.directory, keep=N_KEPT),
    ]
    loop = TrainTestLoop(task.model, components, task.batches)
    loop.train(task.n_epochs)
    return Outcome(
        loss=loop.metrics["train/loss"],
        accuracy=loop.metrics["train/accuracy"],
        averages=averages_of(loop.components["ema"].averaged),
    )


SUPERVISED = Contender(
    name="ttl",
    runs={
        "one-component": partial(run_empty, n_components=1, points=list(BATCH_POINTS)),
        "ten-components": partial(run_empty, n_components=10, points=ALL_POINTS),
        "step": partial(run_step, make_step=make_supervised),
        "everyday": partial(run_everyday, make_step=make_supervised),
    },
    distributions=("ttl-core",),
    n_points=8,
    lean="The component `supervised` takes the steps. The bar is rich's, which `progress` draws.",
)
OWN_STEP = Contender(
    name="ttl, own step",
    runs={
        "step": partial(run_step, make_step=Step),
        "everyday": partial(run_everyday, make_step=Step),
    },
    lean="A component of 15 lines takes the steps, as a user would write it.",
)
