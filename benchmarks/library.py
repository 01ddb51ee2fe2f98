"""The library objects of the everyday set, for contenders that have none of their own."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.task import DECAY, N_CLASSES, N_KEPT


class Screen(io.StringIO):
    """A terminal that keeps nothing, so that progress bars are drawn."""

    def isatty(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Drop the text."""
        return len(text)


def make_accuracy() -> MulticlassAccuracy:
    """Return a metric that does not check its arguments."""
    return MulticlassAccuracy(N_CLASSES, average="micro", validate_args=False)


def make_averages(model: torch.nn.Module) -> AveragedModel:
    """Return exponential moving averages of the weights of a model."""
    average = get_ema_multi_avg_fn(DECAY)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def averages_of(averaged: AveragedModel) -> Sequence[torch.Tensor]:
    """Return the averages."""
    return [parameter.detach() for parameter in averaged.module.parameters()]


def save(directory: Path, epoch_num: int, state: dict[str, Any]) -> None:
    """Save a checkpoint, so that it appears complete or not at all, and delete the oldest one."""
    path = directory / f"epoch-{epoch_num}.pt"
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    (directory / f"epoch-{epoch_num - N_KEPT}.pt").unlink(missing_ok=True)
