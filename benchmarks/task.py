"""What contenders train: the same model on the same batches, anew in each run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

Batch = tuple[torch.Tensor, torch.Tensor]
LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

N_INPUTS, N_HIDDEN, N_CLASSES, BATCH_SIZE = 64, 128, 10, 64
LEARNING_RATE = 1e-3
N_ACCUMULATED = 4
MAX_NORM = 1.0
DECAY = 0.999
N_KEPT = 3


class Batches(Sequence[Batch]):
    """Batches in memory, which note the processor time at the last batch of each epoch.

    From the last batch of one epoch to that of the next, a contender does all that belongs to an
    epoch. The first batch would not do: some libraries read one ahead of training. For all other
    batches this is as cheap as a list.

    Args:
        batches: the batches.

    Attributes:
        last_read_at: when the last batch of each epoch was read, in ns of processor time.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = list(batches)
        self._all_but_last = self._batches[:-1]
        self.last_read_at: list[int] = []

    def __iter__(self) -> Iterator[Batch]:
        return itertools.chain(self._all_but_last, self._last())

    def _last(self) -> Iterator[Batch]:
        self.last_read_at.append(time.process_time_ns())
        yield self._batches[-1]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: Any) -> Any:
        return self._batches[index]


class Loader(DataLoader[Batch]):
    """A DataLoader in name only, for libraries that take nothing else: it adds no cost.

    Args:
        batches: what it iterates over.
    """

    def __init__(self, batches: Batches) -> None:
        super().__init__(batches, batch_size=None)  # type: ignore[arg-type]
        self._batches = batches

    def __iter__(self) -> Any:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


@dataclass
class Task:
    """What a contender trains in one run.

    Attributes:
        batches: the batches of each epoch.
        n_epochs: how often to train on them.
        loss_func: takes scores and targets, returns the mean loss.
        directory: an empty directory, for checkpoints.
        model: a small network. It holds the weights in the end.
    """

    batches: Batches
    n_epochs: int
    loss_func: LossFunction
    directory: Path
    model: torch.nn.Sequential

    def make_optimizer(self, parameters: Iterable[torch.Tensor] | None = None) -> torch.optim.Adam:
        """Return the optimizer that all use, of the model or of what is given."""
        return torch.optim.Adam(
            self.model.parameters() if parameters is None else parameters, lr=LEARNING_RATE
        )


@dataclass
class Outcome:
    """What a run with the everyday set arrives at, besides the weights.

    Attributes:
        loss: the mean loss of the last epoch.
        accuracy: the accuracy in the last epoch.
        averages: the moving averages of the weights; None where they begin with the weights
            before the first step, and not, as in torch's AveragedModel, with those after it.
    """

    loss: float
    accuracy: float
    averages: Sequence[torch.Tensor] | None


def make_model() -> torch.nn.Sequential:
    """Return a network whose training step takes a few hundred µs on one core."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(N_INPUTS, N_HIDDEN), torch.nn.ReLU(), torch.nn.Linear(N_HIDDEN, N_CLASSES)
    )


def make_batches(n_batches: int) -> Batches:
    """Return random inputs and targets."""
    generator = torch.Generator().manual_seed(0)
    return Batches(
        (
            torch.randn(BATCH_SIZE, N_INPUTS, generator=generator),
            torch.randint(0, N_CLASSES, (BATCH_SIZE,), generator=generator),
        )
        for _ in range(n_batches)
    )
