"""A loop without any library: what all others are measured against."""

from __future__ import annotations

import torch
from rich.console import Console
from rich.progress import track

from benchmarks.contender import Contender
from benchmarks.library import Screen, averages_of, make_accuracy, make_averages, save
from benchmarks.task import MAX_NORM, N_ACCUMULATED, Outcome, Task


def run_nothing(task: Task) -> None:
    """Go through the batches, without a component and without a step."""
    for _ in range(task.n_epochs):
        for _inputs, _targets in task.batches:
            pass


def run_step(task: Task) -> None:
    """Train."""
    model, loss_func = task.model, task.loss_func
    optimizer = task.make_optimizer()
    model.train()
    for _ in range(task.n_epochs):
        for inputs, targets in task.batches:
            optimizer.zero_grad()
            loss_func(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def run_everyday(task: Task) -> Outcome:
    """Train with the everyday set."""
    model, loss_func = task.model, task.loss_func
    optimizer = task.make_optimizer()
    averaged = make_averages(model)
    accuracy = make_accuracy()
    model.train()
    for epoch_num in range(task.n_epochs):
        loss_sum, n_samples = torch.zeros(()), 0
        bar = track(task.batches, "train", console=Console(file=Screen()))
        for batch_num, (inputs, targets) in enumerate(bar):
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(inputs)
                loss = loss_func(scores, targets)
            (loss / N_ACCUMULATED).backward()  # type: ignore[no-untyped-call]
            if (batch_num + 1) % N_ACCUMULATED == 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
                optimizer.step()
                optimizer.zero_grad()
                averaged.update_parameters(model)
            loss_sum += loss.detach() * len(inputs)
            n_samples += len(inputs)
            accuracy.update(scores.detach(), targets)
        mean_loss, mean_accuracy = float(loss_sum / n_samples), float(accuracy.compute())
        accuracy.reset()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "averages": averaged.state_dict(),
            "random": torch.get_rng_state(),
            "epoch": epoch_num + 1,
            "metrics": {"loss": mean_loss, "accuracy": mean_accuracy},
        }
        save(task.directory, epoch_num, state)
    return Outcome(mean_loss, mean_accuracy, averages_of(averaged))


CONTENDER = Contender(
    name="hand-written loop",
    runs={
        "one-component": run_nothing,
        "ten-components": run_nothing,
        "step": run_step,
        "everyday": run_everyday,
    },
    distributions=("torch", "torchmetrics", "rich"),
    lean="Batches are not moved to a device. The bar is rich's, as in ttl.",
)
