"""PyTorch-Ignite: an engine with handlers of events around a function that takes a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver, EMAHandler, ProgressBar
from ignite.metrics import Accuracy, Average

from benchmarks.contender import Contender
from benchmarks.library import Screen
from benchmarks.task import DECAY, MAX_NORM, N_ACCUMULATED, N_KEPT, Outcome, Task

ALL_EVENTS = (
    Events.STARTED,
    Events.EPOCH_STARTED,
    Events.GET_BATCH_STARTED,
    Events.GET_BATCH_COMPLETED,
    Events.ITERATION_STARTED,
    Events.ITERATION_COMPLETED,
    Events.EPOCH_COMPLETED,
    Events.COMPLETED,
)


def run_empty(task: Task, n_components: int, events: Sequence[Any]) -> None:
    """Train with handlers that do nothing."""
    trainer = Engine(lambda engine, batch: None)
    for _ in range(n_components):
        for event in events:
            trainer.add_event_handler(event, lambda engine: None)
    trainer.run(task.batches, max_epochs=task.n_epochs)


def run_one_component(task: Task) -> None:
    """Train with handlers of two events."""
    run_empty(task, 1, [Events.ITERATION_STARTED, Events.ITERATION_COMPLETED])


def run_ten_components(task: Task) -> None:
    """Train with ten handlers of each event."""
    run_empty(task, 10, ALL_EVENTS)


def run_step(task: Task) -> None:
    """Train."""
    trainer = create_supervised_trainer(
        task.model,
        task.make_optimizer(),
        task.loss_func,
        output_transform=lambda x, y, y_pred, loss: loss,
    )
    trainer.run(task.batches, max_epochs=task.n_epochs)


def run_everyday(task: Task) -> Outcome:
    """Train with the everyday set."""
    model, optimizer = task.model, task.make_optimizer()

    def train_step(engine: Engine, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        model.train()
        inputs, targets = batch
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(inputs)
            loss = task.loss_func(scores, targets)
        (loss / N_ACCUMULATED).backward()
        if engine.state.iteration % N_ACCUMULATED == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach(), scores.detach(), targets

    trainer = Engine(train_step)
    Average(lambda output: output[0]).attach(trainer, "loss")
    Accuracy(lambda output: output[1:]).attach(trainer, "accuracy")
    averaged = EMAHandler(model, momentum=1 - DECAY)
    averaged.attach(trainer, event=Events.ITERATION_COMPLETED(every=N_ACCUMULATED))
    ProgressBar(file=Screen()).attach(trainer)
    saved = {
        "model": model,
        "optimizer": optimizer,
        "averages": averaged.ema_model,
        "trainer": trainer,
    }
    saver = DiskSaver(str(task.directory), require_empty=False)
    checkpoint = Checkpoint(saved, saver, n_saved=N_KEPT)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
    state = trainer.run(task.batches, max_epochs=task.n_epochs)
    return Outcome(float(state.metrics["loss"]), state.metrics["accuracy"], averages=None)


CONTENDER = Contender(
    name="PyTorch-Ignite",
    runs={
        "one-component": run_one_component,
        "ten-components": run_ten_components,
        "step": run_step,
        "everyday": run_everyday,
    },
    distributions=("pytorch-ignite", "tqdm"),
    n_points=4,
    lean=(
        "`create_supervised_trainer` whose `output_transform` returns the loss as a tensor, "
        "without `.item()`; for the everyday set a step function of the user's own, as it has "
        "none for bf16 with clipping on a CPU. Metrics, averages, bar and checkpoints are its own; "
        "the averages begin with the weights before the first step."
    ),
)
