"""All loggers record the same values, also of a run that has resumed, or gone back."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter

import logged_run
import numpy as np
import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trackio.sqlite_storage import SQLiteStorage
from ttl_report.page import read as read_page
from ttl_wandb.offline import read_rows

from ttl_core import Logger, LoopComponent, use

KILL_STEP = 5  # one step after the last checkpoint


class Triples(Logger):
    """The (step, name, value) triples that are logged, in memory."""

    def __init__(self, level=None):
        super().__init__(level=level)
        self.found = Counter()

    def write(self, records):
        self.found.update(
            (record.step, name, np.float32(value))
            for record in records
            for name, value in record.values.items()
        )


def read_tensorboard(directory):
    """Yield the triples in the event files."""
    events = EventAccumulator(str(directory / "tensorboard"), {"scalars": 0}).Reload()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            yield event.step, name, event.value


def read_mlflow(directory):
    """Yield the triples in the store of MLflow, which has one run."""
    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ttl")
    (run,) = client.search_runs([experiment.experiment_id])
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            yield metric.step, name, metric.value


def read_wandb(directory):
    """Yield the triples in the offline files of wandb, whose rows have numbers that grow."""
    files = sorted(directory.glob("wandb/offline-run-*/*.wandb"))
    rows = [row for file in files for row in read_rows(file)]
    assert list(range(len(rows))) == [number for number, _ in rows]
    for _, values in rows:
        step = json.loads(values["global_step"])
        for name, value in values.items():
            if "/" in name:
                yield step, name, json.loads(value)


def read_csv(directory):
    """Yield the triples in the file."""
    with (directory / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if "/" in name and value:
                    yield int(row["step"]), name, float(value)


def read_jsonl(directory):
    """Yield the triples in the file."""
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield from ((row["step"], name, value) for name, value in row.items() if "/" in name)


def read_report(directory):
    """Yield the triples in the page."""
    for series in read_page(directory / "report.html")["series"]:
        for step, value in zip(series["steps"], series["values"], strict=True):
            yield step, series["name"], value


def read_trackio(directory):
    """Yield the triples in the store of Trackio, which has one run."""
    (record,) = SQLiteStorage.get_run_records("agree")
    for row in SQLiteStorage.get_logs("agree", run_id=record["id"]):
        for name, value in row.items():
            if "/" in name:
                yield row["step"], name, value


READERS = {
    "csv": read_csv,
    "mlflow": read_mlflow,
    "tensorboard": read_tensorboard,
    "trackio": read_trackio,
    "wandb": read_wandb,
}


@pytest.fixture(scope="module")
def logged():
    """Return the triples of a run that nothing disturbs."""
    triples = Triples()
    logged_run.make_loop(triples).train(3)
    return triples.found


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return the directory of a run that was killed, and has resumed in another process.

    Also the lines that its program has printed.
    """
    directory = tmp_path_factory.mktemp("killed")
    environment = {name: value for name, value in os.environ.items() if "WANDB" not in name}
    environment |= {
        "TRACKIO_DIR": str(directory / "trackio"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_CONFIG_DIR": str(directory / "config"),
        "WANDB_CACHE_DIR": str(directory / "cache"),
    }
    command = [sys.executable, logged_run.__file__, str(directory), str(KILL_STEP), "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert ["-9", "0"] == lines[-2:], done.stderr
    return directory, lines


@pytest.mark.parametrize("name", READERS)
def test_a_killed_run_has_the_values_of_a_whole_one(logged, program, monkeypatch, name):
    """Each (step, name, value) that is logged is in each store once, in single precision."""
    directory, _ = program
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", directory / "trackio")
    found = READERS[name](directory)
    assert logged == Counter((step, each, np.float32(value)) for step, each, value in found)


def test_the_components_import_their_libraries_when_a_run_needs_them(program):
    """To import the components is cheap."""
    _, lines = program
    assert "" == lines[0]


class GoBack(LoopComponent):
    """Goes back once, over the end of an epoch, when the loggers have written what is undone."""

    def __init__(self):
        self.state = None

    def on_safe_point(self, loop):
        if loop.global_step == 2 and self.state is None:
            self.state = loop.state_dict()
        elif loop.global_step == 5 and self.state:
            for component in loop.components:
                if isinstance(component, Logger):
                    component.flush()
            state, self.state = self.state, {}
            loop.rewind(state)


@pytest.fixture(scope="module")
def rewound(tmp_path_factory):
    """Return the directory and the loop of a run that has gone back."""
    directory = tmp_path_factory.mktemp("rewound")
    files = [use(name, directory=directory) for name in ("csv", "jsonl", "report")]
    board = use("tensorboard", directory=directory / "tensorboard")
    loop = logged_run.make_loop(*files, board, "history", GoBack())
    loop.train(3)
    return directory, loop


LOCAL_READERS = {
    "csv": read_csv,
    "jsonl": read_jsonl,
    "report": read_report,
    "tensorboard": read_tensorboard,
}


def shown(triples):
    """Return triples with as many digits as each store has."""
    return Counter((step, name, f"{np.float32(value):.4g}") for step, name, value in triples)


@pytest.mark.parametrize("name", LOCAL_READERS)
def test_a_run_that_has_gone_back_has_the_values_of_one_that_never_did(logged, rewound, name):
    """What was undone is in no store, and what was logged again is in each once."""
    directory, _ = rewound
    assert shown(logged.elements()) == shown(LOCAL_READERS[name](directory))


def test_the_history_of_a_run_that_has_gone_back_is_that_of_one_that_never_did(rewound):
    """The same of the values in memory, which are those of epochs."""
    _, loop = rewound
    plain = logged_run.make_loop(Triples("epoch"))
    plain.train(3)
    rows = loop.components["history"].rows
    found = [(row["step"], name, row[name]) for row in rows for name in row if "/" in name]
    assert shown(plain.components["triples"].found.elements()) == shown(found)
