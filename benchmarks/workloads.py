"""What is measured: the workloads that contenders run, and the rows that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

N_EPOCHS = 4


@dataclass(frozen=True)
class Workload:
    """Something that contenders run.

    Attributes:
        name: what contenders call it.
        n_batches: the number of batches in each of the epochs.
        trains: whether it has a training step, so that losses and weights can be compared.
    """

    name: str
    n_batches: int
    trains: bool


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("one-component", n_batches=250, trains=False),
        Workload("ten-components", n_batches=250, trains=False),
        Workload("step", n_batches=100, trains=True),
        Workload("everyday", n_batches=252, trains=True),  # a multiple of what is accumulated
    )
}


@dataclass(frozen=True)
class Row:
    """A figure of the page for each contender.

    Attributes:
        title: the head of its column.
        sentence: what it is about, at the start of a sentence.
        workload: the name of what is run for it.
        figure: which figure of a run it is: what a batch takes beyond the hand-written loop, in
            µs; what a batch takes, or a whole run, in multiples of the hand-written loop.
    """

    title: str
    sentence: str
    workload: str
    figure: Literal["batch, µs", "batch", "run"]

    @property
    def is_ratio(self) -> bool:
        """Whether it is a multiple of the hand-written loop."""
        return self.figure != "batch, µs"


ROWS = (
    Row("1 component of 2 points, µs", "The loop alone", "one-component", "batch, µs"),
    Row("10 components of all points, µs", "Ten components", "ten-components", "batch, µs"),
    Row("training step", "The training step", "step", "batch"),
    Row("everyday set", "The everyday set", "everyday", "batch"),
    Row("everyday set, whole run", "The everyday set in whole runs", "everyday", "run"),
)
