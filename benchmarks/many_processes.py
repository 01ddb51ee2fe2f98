"""The cost of `ddp` and `fsdp` against loops by hand around what they use, on the same work.

`python -m benchmarks.many_processes` starts two processes on the CPU with gloo and, where this
machine has several GPUs, one on each with nccl; where it has not, it says that nccl was not run.
By hand it is DistributedDataParallel, or `fully_shard` on each layer. Both train the same model on
the same batches; the weights that they come to have to agree. Epochs by hand and with ttl take
turns in coming first. Printed is the median of the ratios of their times.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from ttl_core import LoopComponent, TrainTestLoop, use

N_BATCHES, N_UNTIMED = 48, 8  # in an epoch; those before the clock starts
BATCH_SIZE = 128  # of all processes
WORKLOADS = {"plain": 1, "accumulation of 4, grad-clip, metrics": 4}


def make_model(width: int) -> torch.nn.Module:
    """Return the model, the same in each call with this width."""
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))


def make_data(width: int) -> TensorDataset:
    """Return the data, the same in each call with this width."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(N_BATCHES * BATCH_SIZE, width, generator=generator)
    return TensorDataset(inputs, inputs.mean(dim=1, keepdim=True))


def now(device: torch.device) -> float:
    """Return the time at which the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Replicas:
    """A model of which each process has the whole.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.forward = DistributedDataParallel(model)

    def reducing(self, is_stepping: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a batch, in which gradients are reduced where it steps."""
        return contextlib.nullcontext() if is_stepping else self.forward.no_sync()


class Shards:
    """A model of which each process has a part.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        for layer in model.children():
            if isinstance(layer, torch.nn.Linear):
                fully_shard(layer)
        self.forward: Any = fully_shard(model)
        self.is_reducing = True

    def reducing(self, is_stepping: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of a batch, in which gradients are reduced where it steps."""
        if is_stepping != self.is_reducing:  # setting it goes through all modules
            self.is_reducing = is_stepping
            self.forward.set_requires_gradient_sync(is_stepping)
        return contextlib.nullcontext()


COMPONENTS: dict[str, tuple[type[Replicas] | type[Shards], Any]] = {
    "ddp": (Replicas, "ddp"),
    "fsdp": (Shards, use("fsdp", layers="Linear")),
}


class ByHand:
    """A training loop by hand.

    Args:
        component: the name of the component that it is compared with.
        width: of the layers of the model.
        every: how many batches make a step.
        device: the device.
    """

    def __init__(self, component: str, width: int, every: int, device: torch.device) -> None:
        self.every, self.device = every, device
        self.model = make_model(width).to(device)
        self.parallel = COMPONENTS[component][0](self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        data = make_data(width)
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
            with self.parallel.reducing(is_stepping):
                loss = torch.nn.functional.mse_loss(self.parallel.forward(inputs), targets)
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
        component: the name of the component that trains in several processes.
        width: of the layers of the model.
        every: how many batches make a step.
        device: the device.
    """

    def __init__(self, component: str, width: int, every: int, device: torch.device) -> None:
        self.model = make_model(width).to(device)
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
                COMPONENTS[component][1],
                use(
                    "supervised",
                    loss_func=torch.nn.MSELoss(),
                    optimizer=functools.partial(torch.optim.SGD, lr=0.01),
                ),
                *more,
                self.clock,
            ],
            DataLoader(make_data(width), BATCH_SIZE),
        )

    def epochs(self, n: int, by_hand: ByHand) -> list[tuple[float, float]]:
        """Train epochs, each beside one by hand, and return the seconds of both."""
        seconds: list[tuple[float, float]] = []
        clock = self.clock

        class Alternate(LoopComponent):
            def on_epoch_begin(self, loop: TrainTestLoop) -> None:
                if loop.epoch_num % 2 == 0:
                    self.seconds = by_hand.epoch()

            def on_epoch_end(self, loop: TrainTestLoop) -> None:
                if loop.epoch_num % 2 == 1:  # as what comes second takes longer
                    self.seconds = by_hand.epoch()
                seconds.append((clock.seconds, self.seconds))

        self.loop.components.append(Alternate())
        self.loop.train(n)
        return seconds


def own_part(parameter: torch.Tensor) -> torch.Tensor:
    """Return what this process has of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def work(n_epochs: int, width: int) -> None:
    """Measure, in a process that torchrun has started."""
    torch.set_num_threads(1)
    for component, (name, every) in itertools.product(COMPONENTS, WORKLOADS.items()):
        device = torch.device("cpu")
        loop = TrainTestLoop(make_model(width), [component])
        assert loop.group.size > 1  # which has joined the group
        if torch.cuda.is_available():
            device = torch.device("cuda", torch.cuda.current_device())
        by_hand = ByHand(component, width, every, device)
        with_ttl = WithTtl(component, width, every, device)
        seconds = with_ttl.epochs(n_epochs, by_hand)[1:]
        for one, other in zip(by_hand.model.parameters(), with_ttl.model.parameters(), strict=True):
            torch.testing.assert_close(own_part(one), own_part(other), rtol=1e-4, atol=1e-6)
        if loop.group.is_main:
            ratio = statistics.median(ours / its for ours, its in seconds)
            batch = 1e3 * statistics.median(its for _, its in seconds) / (N_BATCHES - N_UNTIMED)
            what = f"{dist.get_backend()}: {component}: {name}"
            print(f"{what}: {ratio:.3f} of a loop by hand, {batch:.1f} ms a batch", flush=True)


def main() -> None:
    """Start the processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_processes")
    parser.add_argument("--epochs", type=int, default=30, help="default %(default)s")
    parser.add_argument("--width", type=int, default=256, help="of layers; default %(default)s")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.epochs, arguments.width)
        return
    n_gpus = torch.cuda.device_count()
    if n_gpus < 2:
        print(f"nccl: not run, as it takes two GPUs, and this machine has {n_gpus}", flush=True)
    n_processes = str(max(n_gpus, 2))
    program = ["-m", "benchmarks.many_processes", "--worker", *sys.argv[1:]]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", n_processes]
    sys.exit(subprocess.run([*torchrun, *program], check=False).returncode)


if __name__ == "__main__":
    main()
