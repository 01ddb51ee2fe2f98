"""How contenders are measured: in turn, in one process, in processor time."""

from __future__ import annotations

import contextlib
import gc
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.contender import Contender
from benchmarks.library import Screen
from benchmarks.task import LossFunction, Outcome, Task, make_batches, make_model
from benchmarks.workloads import N_EPOCHS, Workload


@dataclass(frozen=True)
class Sample:
    """What one run took, in seconds of processor time.

    Attributes:
        batch: what a batch took, from the last batch of the first epoch to that of the last one,
            with all that happens between epochs, and without start-up and tear-down.
        run: what the whole run took.
    """

    batch: float
    run: float


Samples = dict[tuple[str, str], list[Sample]]
"""The samples of each workload and contender, one a round."""


@contextlib.contextmanager
def make_task(n_batches: int, loss_func: LossFunction) -> Iterator[Task]:
    """Yield a task with a directory that exists meanwhile."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        yield Task(make_batches(n_batches), N_EPOCHS, loss_func, Path(directory), make_model())


def call(contender: Contender, workload: Workload, task: Task) -> Outcome | None:
    """Run a contender with bars drawn on a terminal that keeps nothing."""
    with contextlib.redirect_stdout(Screen()), contextlib.redirect_stderr(Screen()):
        return contender.runs[workload.name](task)


def measure(contender: Contender, workload: Workload) -> Sample:
    """Run a contender once, with the garbage collector disabled."""
    with make_task(workload.n_batches, torch.nn.functional.cross_entropy) as task:
        gc.collect()
        gc.disable()
        try:
            start = time.process_time()
            call(contender, workload, task)
            seconds = time.process_time() - start
        finally:
            gc.enable()
        first, *_, last = task.batches.last_read_at
        n_batches = (N_EPOCHS - 1) * workload.n_batches
        return Sample((last - first) / 1e9 / n_batches, seconds)


def measure_all(
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    max_rounds: int,
    max_seconds: float,
) -> Samples:
    """Run all contenders in rounds, in another order in each, until one of the limits is reached.

    In a round, the contenders of a workload follow each other, so that they meet the same noise.

    Args:
        contenders: the contenders.
        workloads: what they run.
        max_rounds: the number of rounds at most.
        max_seconds: after how many seconds, in which there are three rounds at least, no other
            round begins.
    """
    runs = {w: [c for c in contenders if w.name in c.runs] for w in workloads}
    samples: Samples = {(w.name, c.name): [] for w in workloads for c in runs[w]}
    shuffle = random.Random(0).shuffle
    start = time.monotonic()
    for n_rounds in range(max_rounds):
        if n_rounds >= 3 and time.monotonic() - start > max_seconds:
            break
        for workload in workloads:
            shuffle(runs[workload])
            for contender in runs[workload]:
                samples[workload.name, contender.name].append(measure(contender, workload))
        print(f"round {n_rounds + 1}, {time.monotonic() - start:.0f} s", flush=True)
    return samples
