"""What a report costs: in each step, of a million steps, and in a browser."""

import os
import time
from pathlib import Path

import pytest
import torch
from browser import Page, open_browser

from ttl_core import Logger, LoopComponent, TrainTestLoop, use

pytestmark = pytest.mark.bench

MEGABYTE = 2**20


class Step(LoopComponent):
    """A step of some length, after which ten values are logged.

    Args:
        seconds: how long it takes.

    Attributes:
        total: the processor time of the last epoch; others may share the processor.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.values = {f"value-{i}": torch.tensor(float(i)) for i in range(10)}

    def on_epoch_begin(self, loop):
        self.started = time.process_time()

    def on_forward_pass(self, loop):
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass

    def on_batch_end(self, loop):
        loop.log(dict(self.values))

    def on_epoch_end(self, loop):
        self.total = time.process_time() - self.started


class Drop(Logger):
    """A logger that is given what a report is given, and keeps nothing."""

    def write(self, records):
        pass


def test_a_step_of_a_millisecond(assert_ratio, tmp_path):
    """With ten values each batch, a report adds little to what every logger costs."""

    def epoch_of(logger):
        loop = TrainTestLoop(torch.nn.Identity(), [Step(1e-3), logger], range(500))

        def train():
            loop.train(1)
            return loop.components[0].total

        return train

    assert_ratio(
        "a step of 1 ms with a report of ten values a batch",
        epoch_of(use("report", directory=tmp_path)),
        "with a logger that drops them",
        epoch_of(Drop()),
        limit=1.05,
        repeats=5,
        per=500,
    )


def resident_memory():
    """Return how much memory the process uses, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_million_steps(tmp_path):
    """They take less than 20 MB, and open in less than 3 s, with what a short report shows."""

    class Log(LoopComponent):
        def on_batch_end(self, loop):
            loop.log({"loss": 1 / (1 + loop.global_step)})

    report = use("report", directory=tmp_path)
    loop = TrainTestLoop(torch.nn.Identity(), [Log(), report], range(1_000_000))
    loop.train(n_optim_steps=10_000)
    before = resident_memory()
    loop.train(n_epochs=1)
    growth = (resident_memory() - before) / MEGABYTE
    with open_browser() as browser:
        started = time.perf_counter()
        page = Page(browser, loop.components["report"].path)
        assert page.n_colors("figure") > 3
        seconds = time.perf_counter() - started
    print(f"\na million steps: {growth:.1f} MB of growth, opens in {seconds:.2f} s")
    assert growth < 20
    assert seconds < 3
