"""What loggers and monitors add to a real step, and what their libraries cost called by hand."""

import csv
import io
import json

import pytest
import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use
from ttl_core.testing import Step

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

N_BATCHES = 200
TOGETHER = ("csv", "jsonl", "tensorboard", "history", "lr-monitor", "progress")
IN_DIRECTORY = {"csv", "jsonl", "tensorboard"}


class LogTen(LoopComponent):
    """Ten tensors that are logged for each batch."""

    names = tuple(f"value-{i}" for i in range(10))

    def __init__(self):
        self.values = torch.rand(10).unbind()

    def on_batch_end(self, loop):
        loop.log(dict(zip(self.names, self.values, strict=True)))


def make_loop(*components):
    """Return a loop whose step takes about a millisecond on a CPU."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.Linear(256, 10),
    )
    data = [(torch.randn(128, 64), torch.randint(0, 10, (128,)))] * N_BATCHES
    return TrainTestLoop(model, [Step(), LogTen(), *components], data)


def make_logger(name, directory):
    """Return the spec of a logger, a monitor, or the bar, which a terminal in memory shows."""
    if name == "progress":
        return use(name, console=Console(file=io.StringIO(), force_terminal=True))
    return use(name, directory=directory) if name in IN_DIRECTORY else use(name)


def test_all_loggers_together_against_none(tmp_path, assert_ratio):
    """Ten values for each batch of a millisecond cost at most a twentieth of it."""
    loggers = [make_logger(name, tmp_path) for name in TOGETHER]
    logged, plain = make_loop(*loggers), make_loop()
    assert_ratio(
        f"a real step, ten values, {len(TOGETHER)} loggers",
        lambda: logged.train(1),
        "the same without loggers",
        lambda: plain.train(1),
        limit=1.3,
        repeats=9,
        per=N_BATCHES,
    )


class ByHand(LogTen):
    """What a user would write to write ten values for each batch."""

    def __init__(self, directory):
        super().__init__()
        self.path = directory / "by-hand"


class CsvByHand(ByHand):
    @hookimpl(wrapper=True)
    def around_run(self, loop):
        with self.path.open("w") as file:
            self.writer = csv.writer(file)
            return (yield)

    def on_batch_end(self, loop):
        values = [value.item() for value in self.values]
        self.writer.writerow([loop.epoch_num, loop.global_step, *values])


class JsonlByHand(ByHand):
    @hookimpl(wrapper=True)
    def around_run(self, loop):
        with self.path.open("w") as self.file:
            return (yield)

    def on_batch_end(self, loop):
        row = {"epoch": loop.epoch_num, "step": loop.global_step}
        row |= {name: v.item() for name, v in zip(self.names, self.values, strict=True)}
        self.file.write(json.dumps(row) + "\n")


class TensorboardByHand(ByHand):
    @hookimpl(wrapper=True)
    def around_run(self, loop):
        with SummaryWriter(self.path) as self.writer:
            return (yield)

    def on_batch_end(self, loop):
        for name, value in zip(self.names, self.values, strict=True):
            self.writer.add_scalar(name, value.item(), loop.global_step)


BY_HAND = {"csv": CsvByHand, "jsonl": JsonlByHand, "tensorboard": TensorboardByHand}


@pytest.mark.parametrize(("name", "limit"), {"csv": 1.5, "jsonl": 1.5, "tensorboard": 0.2}.items())
def test_a_logger_against_its_library_called_by_hand(tmp_path, assert_ratio, name, limit):
    """A logger costs about what the library does that a user would call for each batch."""
    model, data = torch.nn.Identity(), range(10 * N_BATCHES)
    logged = TrainTestLoop(model, [LogTen(), make_logger(name, tmp_path)], data)
    by_hand = TrainTestLoop(model, [BY_HAND[name](tmp_path)], data)
    assert_ratio(
        f"no step, ten values, {name}",
        lambda: logged.train(1),
        "its library called by hand",
        lambda: by_hand.train(1),
        limit=limit,
        repeats=9,
        per=10 * N_BATCHES,
    )
