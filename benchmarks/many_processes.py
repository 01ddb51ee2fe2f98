"""The cost of `ddp` against a loop by hand around DistributedDataParallel, on the same work.

`python -m benchmarks.many_processes` starts two processes on the CPU with gloo and, where this
machine has several GPUs, one on each with nccl; where it has not, it says that nccl was not run.
Both train the same model on the same batches; the weights that they come to have to agree, and each
epoch by hand is followed by one with ttl. Printed is the median of the ratios of their times.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ttl_core import LoopComponent, TrainTestLoop, use

N_BATCHES, N_UNTIMED = 48, 8  # in an epoch; those before the clock starts
BATCH_SIZE = 128  # of all processes
WIDTH = 256
WORKLOADS = {"plain": 1, "accumulation of 4, grad-clip, metrics": 4}


def make_model() -> torch.nn.Module:
    """Return the model, the same in each call."""
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1))


def make_data() -> TensorDataset:
    """Return the data, the same in each call."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(N_BATCHES * BATCH_SIZE, WIDTH, generator=generator)
    return TensorDataset(inputs, inputs.mean(dim=1, keepdim=True))


def now(device: torch.device) -> float:
    """Return the time at which the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class ByHand:
    """A training loop by hand.

    Args:
        every: how many batches make a step.
        device: the device.
    """

    def __init__(self, every: int, device: torch.device) -> None:
        self.every, self.device = every, device
        self.model = make_model().to(device)
        self.parallel = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        data = make_data()
        share = BATCH_SIZE // dist.get_world_size()
        sampler: Any = DistributedSampler(data, shuffle=False)
        self.data = DataLoader(data, share, sampler=sampler)

    def epoch(self) -> float:
        """Train an epoch, and return the seconds that its timed batches took."""
        total = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        begun = 0.0
        for i, (inputs, targets) in enumerate(self.data):
            if i == N_UNTIMED:
                begun = now(self.device)
            inputs, targets = inputs.to(self.device), targets.to(self.device)
            is_stepping = (i + 1) % self.every == 0
            with contextlib.nullcontext() if is_stepping else self.parallel.no_sync():
                loss = torch.nn.functional.mse_loss(self.parallel(inputs), targets)
                (loss / self.every).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            if is_stepping:
                if self.every > 1:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad()
        return now(self.device) - begun


class Clock(LoopComponent):
    """The seconds that the timed batches of an epoch took.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Begin, once the first batches have gone by."""
        if loop.batch_num == N_UNTIMED:
            self.begun = now(self.device)

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """End with the last batch."""
        if loop.batch_num + 1 == N_BATCHES:
            self.seconds = now(self.device) - self.begun


class WithTtl:
    """The same with ttl, whose epochs pause for those by hand.

    Args:
        every: how many batches make a step.
        device: the device.
    """

    def __init__(self, every: int, device: torch.device) -> None:
        self.model = make_model().to(device)
        self.clock = Clock(device)
        more: list[Any] = []
        if every > 1:
            more = [
                use("grad-accumulation", every=every),
                use("grad-clip", max_norm=1.0),
                "metrics",
            ]
        self.loop = TrainTestLoop(
            self.model,
            [
                "ddp",
                use(
                    "supervised",
                    loss_func=torch.nn.MSELoss(),
                    optimizer=functools.partial(torch.optim.SGD, lr=0.01),
                ),
                *more,
                self.clock,
            ],
            DataLoader(make_data(), BATCH_SIZE),
        )

    def epochs(self, n: int, by_hand: ByHand) -> Iterator[float]:
        """Train epochs, each after one by hand, and return the ratios of their times."""
        ratios: list[float] = []
        clock = self.clock

        class Alternate(LoopComponent):
            def on_epoch_begin(self, loop: TrainTestLoop) -> None:
                self.seconds = by_hand.epoch()

            def on_epoch_end(self, loop: TrainTestLoop) -> None:
                ratios.append(clock.seconds / self.seconds)

        self.loop.components.append(Alternate())
        self.loop.train(n)
        return iter(ratios)


def work(n_epochs: int) -> None:
    """Measure, in a process that torchrun has started."""
    torch.set_num_threads(1)
    for name, every in WORKLOADS.items():
        device = torch.device("cpu")
        loop = TrainTestLoop(make_model(), ["ddp"])
        assert loop.group.size > 1  # which has joined the group
        if torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
        by_hand, with_ttl = ByHand(every, device), WithTtl(every, device)
        ratios = list(with_ttl.epochs(n_epochs, by_hand))
        for one, other in zip(by_hand.model.parameters(), with_ttl.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        if loop.group.is_main:
            middle = statistics.median(ratios[1:])
            print(f"{dist.get_backend()}: {name}: {middle:.3f} of a loop by hand", flush=True)


def main() -> None:
    """Start the processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_processes")
    parser.add_argument("--epochs", type=int, default=30, help="default %(default)s")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.epochs)
        return
    n_gpus = torch.cuda.device_count()
    if n_gpus < 2:
        print(f"nccl: not run, as it takes two GPUs, and this machine has {n_gpus}", flush=True)
    n_processes = str(max(n_gpus, 2))
    program = ["-m", "benchmarks.many_processes", "--worker", "--epochs", str(arguments.epochs)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", n_processes]
    sys.exit(subprocess.run([*torchrun, *program], check=False).returncode)


if __name__ == "__main__":
    main()
