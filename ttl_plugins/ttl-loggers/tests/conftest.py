"""What the tests of this package share: how files are read, and a component that logs."""

import csv
import json

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, use


class Log(LoopComponent):
    """Values that are logged for each batch, and for each epoch."""

    def on_forward_pass(self, loop):
        if loop.is_training:
            loop.log({"loss": torch.tensor(loop.global_step / 2)})

    def on_loss_compute(self, loop):
        loop.log({"b": loop.batch})

    def on_epoch_end(self, loop):
        loop.log({"last": loop.batch}, level="epoch")


class Files:
    """The files of a run in a directory, of one type.

    Args:
        directory: the directory.
        kind: "csv" or "jsonl".
    """

    def __init__(self, directory, kind):
        self.directory = directory
        self.kind = kind

    def make_loop(self, *components, data=(0, 1, 2), valid_data=None, **options):
        """Return a loop with a logger of the type."""
        logger = use(self.kind, directory=self.directory, **options)
        return TrainTestLoop(torch.nn.Identity(), [*components, logger], data, valid_data)

    def path(self, n=None):
        """Return the path of the file, or of one that was moved."""
        return self.directory / f"metrics.{'' if n is None else f'{n}.'}{self.kind}"

    def rows(self, n=None):
        """Return the rows of a file as dicts of numbers, without what is empty, and their time."""
        with self.path(n).open(newline="") as stream:
            rows = list(csv.DictReader(stream) if self.kind == "csv" else map(json.loads, stream))
        assert all(isinstance(float(row.pop("time")), float) for row in rows)
        return [{k: v if k == "level" else float(v) for k, v in r.items() if v != ""} for r in rows]

    def steps(self, n=None):
        """Return the steps of the rows of batches."""
        return [row["step"] for row in self.rows(n) if row["level"] == "batch"]


@pytest.fixture(params=["csv", "jsonl"])
def files(request, tmp_path):
    """Return the files of a run, of each type."""
    return Files(tmp_path, request.param)


@pytest.fixture
def csv_files(tmp_path):
    """Return the CSV files of a run."""
    return Files(tmp_path, "csv")


@pytest.fixture
def log():
    """Return a component that logs for each batch and epoch."""
    return Log()


@pytest.fixture
def log_these():
    """Return a function that returns a component which logs values at the end of each batch."""

    def make(function):
        return type("L", (LoopComponent,), {"on_batch_end": lambda _, loop: function(loop)})()

    return make
