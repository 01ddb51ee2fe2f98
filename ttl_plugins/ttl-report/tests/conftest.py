"""Runs of a loop with a report, for all tests of this package."""

from __future__ import annotations

import pytest
import torch
from ttl_report.page import read

from ttl_core import LoopComponent, TrainTestLoop, use


class Log(LoopComponent):
    """Values that grow: at batch level in training, and at epoch level in all phases."""

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.log({"loss": torch.tensor(float(loop.global_step))})

    def on_epoch_end(self, loop):
        loop.log({"loss": 10.0 + loop.global_step}, level="epoch")


@pytest.fixture
def make_loop(tmp_path):
    """Return a function that makes a loop with a report in the folder "run"."""

    def make(*components, log=None, valid_data=(0,), n_batches=3, folder="run"):
        report = use("report", directory=tmp_path / folder)
        items = [log or Log(), *components, report]
        return TrainTestLoop(torch.nn.Linear(1, 1), items, [0] * n_batches, valid_data)

    return make


@pytest.fixture
def page(tmp_path):
    """Return a function that returns the HTML of the report in the folder "run"."""
    return lambda folder="run": (tmp_path / folder / "report.html").read_text()


@pytest.fixture
def document(tmp_path):
    """Return a function that returns the document in the report in the folder "run"."""
    return lambda folder="run": read(tmp_path / folder / "report.html")


@pytest.fixture
def curves(document):
    """Return a function that returns the curves of a report: by name and level, by step."""

    def of(folder="run"):
        return {
            (one["name"], one["level"]): dict(zip(one["steps"], one["values"], strict=True))
            for one in document(folder)["series"]
        }

    return of
