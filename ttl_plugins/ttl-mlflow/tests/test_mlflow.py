"""What MLflow's client finds in the store."""

import json
import math
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from loops import act_at
from mlflow import MlflowClient
from states import make_step_loop
from ttl_mlflow import Mlflow
from ttl_mlflow.store import create_store

from ttl_core import LoopComponent, use


class Log(LoopComponent):
    """Values of batches, the same name for an epoch, and others."""

    def __init__(self, **values):
        self.values = values

    def on_batch_end(self, loop):
        loop.log({"a": torch.tensor(loop.global_step / 8)} | self.values)

    def on_epoch_end(self, loop):
        loop.log({"a": loop.epoch_num}, level="epoch")


def train(logger, *others, n_epochs=1, **values):
    """Train, and return the component."""
    make_step_loop(Log(**values), *others, logger, step=LoopComponent).train(n_epochs)
    return logger


def history(logger, key="train/a"):
    """Return the (step, value) pairs of a metric."""
    client = MlflowClient(logger.tracking_uri)
    found = client.get_metric_history(logger.run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def run_of(logger):
    """Return the run in the store."""
    return MlflowClient(logger.tracking_uri).get_run(logger.run_id)


EXPECTED = sorted([(step, step / 8) for step in range(1, 7)] + [(3, 0), (6, 1)])


def test_numbers_are_metrics_at_the_steps_of_the_loop(store):
    """Those of batches and of epochs, each once."""
    assert EXPECTED == history(train(Mlflow(store), n_epochs=2))


def test_the_folder_of_the_run_has_the_store_by_default(store, tmp_path, monkeypatch):
    """Also the artifacts; the run has the name of the folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def set_folder(loop):
        loop.run_folder = tmp_path

    shutil.copy(store.removeprefix("sqlite:///"), tmp_path)  # creating tables takes seconds
    (tmp_path / "report.html").write_text("well")
    logger = Mlflow(experiment="first", artifacts=["report.html", "missing.html"])
    train(logger, act_at("on_train_begin", set_folder))
    run = run_of(logger)
    assert f"sqlite:///{tmp_path / 'mlflow.db'}" == logger.tracking_uri
    assert tmp_path.name == run.info.run_name
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {"report.html", "manifest.json"} == {path.name for path in artifacts.iterdir()}


def test_the_run_is_described(store):
    """Its configuration as parameters, its manifest as an artifact, its tags."""
    logger = Mlflow(store, experiment="described", run_name="first", tags={"who": "me"})
    loop = make_step_loop(Log(), logger, use("mlflow", tracking_uri=store, every=2, name="other"))
    loop.train(1)
    run, client = run_of(logger), MlflowClient(store)
    assert "first" == run.info.run_name
    assert "me" == run.data.tags["who"]
    assert "described" == client.get_experiment(run.info.experiment_id).name
    assert "step, log, mlflow, other" == run.data.params["components"]
    assert "2" == run.data.params["other.every"]
    path = Path(run.info.artifact_uri.removeprefix("file://")) / "manifest.json"
    assert loop.manifest() == json.loads(path.read_text())


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_file_has_all_tables_or_does_not_exist(tmp_path, monkeypatch, is_killed):
    """One with some of them, as after a full disk, would be of no use for any later run."""

    class Client:
        def __init__(self, uri):
            self.path = Path(uri.removeprefix("sqlite:///"))
            self.path.write_text("some tables")

        def search_experiments(self, max_results):
            if is_killed:
                raise OSError("database or disk is full")
            self.path.write_text("all tables")

    monkeypatch.setattr("ttl_mlflow.store.MlflowClient", Client)
    path = tmp_path / "mlflow.db"
    with pytest.raises(OSError, match="full") if is_killed else nullcontext():
        create_store(path)
    assert ({} if is_killed else {path: "all tables"}) == {
        found: found.read_text() for found in tmp_path.iterdir()
    }


def test_a_file_that_another_process_has_created_meanwhile_is_kept(tmp_path, monkeypatch):
    """It may have runs already."""
    path = tmp_path / "mlflow.db"

    class Client:
        def __init__(self, uri):
            Path(uri.removeprefix("sqlite:///")).write_text("tables")

        def search_experiments(self, max_results):
            path.write_text("tables and a run")

    monkeypatch.setattr("ttl_mlflow.store.MlflowClient", Client)
    create_store(path)
    assert {path: "tables and a run"} == {found: found.read_text() for found in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("raised", "status"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_how_the_run_has_ended_is_its_status(store, raised, status):
    """An exception is a failure, ctrl-C is not."""

    def fail(loop):
        if raised:
            raise raised

    logger = Mlflow(store)
    with pytest.raises(raised) if raised else nullcontext():
        train(logger, act_at("on_train_end", fail))
    assert status == run_of(logger).info.status


def test_values_that_are_not_finite_are_as_mlflow_has_them(store):
    """NaN is NaN, infinity is the largest float; so is an integer beyond float."""
    logger = train(Mlflow(store), nan=math.nan, inf=math.inf, big=-(10**400))
    assert all(math.isnan(value) for _, value in history(logger, "train/nan"))
    largest = 1.7976931348623157e308
    assert {largest} == {value for _, value in history(logger, "train/inf")}
    assert {-largest} == {value for _, value in history(logger, "train/big")}


def test_names_and_values_that_mlflow_refuses_are_messages(store, caplog):
    """A name is written as another one, a text is left out; each is said once."""
    logger = train(Mlflow(store), **{"acc@5": 1, "note": "all is well"})
    assert [(1, 1.0), (2, 1.0), (3, 1.0)] == history(logger, "train/acc-0x40-5")
    assert [
        "mlflow: 'train/note' is not written: a str is no number",
        "mlflow: 'train/acc@5' is written as 'train/acc-0x40-5': MLflow refuses the name",
    ] == caplog.messages


def test_more_values_than_a_call_takes_are_several_calls(store, monkeypatch):
    """MLflow takes 1000 metrics a call; what was written of them is not written again."""
    logger = Mlflow(store)
    calls = []
    log_batch = MlflowClient.log_batch

    def fail_once(self, run_id, metrics=(), **rest):
        if metrics:
            calls.append(len(metrics))
            if len(calls) == 3:
                raise OSError("lost network")
        return log_batch(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", fail_once)
    values = {f"v{i}": i for i in range(600)}
    train(logger, act_at("on_epoch_end", lambda loop: logger.flush()), **values)
    assert [601, 1000, 203, 203] == calls
    assert [(1, 599.0), (2, 599.0), (3, 599.0)] == history(logger, "train/v599")
    assert [(1, 0.0), (2, 0.0), (3, 0.0)] == history(logger, "train/v0")


def test_checkpoints_are_uploaded_on_request(store, tmp_path):
    """Each is a folder of the artifacts."""
    saver = use("checkpoint", directory=tmp_path, signals=False)
    logger = Mlflow(store, checkpoints=True)
    make_step_loop(Log(), saver, logger).train(2)
    found = MlflowClient(store).list_artifacts(logger.run_id, "checkpoints")
    assert 2 == len(found)


def test_a_resumed_run_has_each_value_once(store):
    """From any safe point, in the same run, also in the midst of the values of a step."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    first = train(Mlflow(store), keep, n_epochs=2)
    for state in tuple(states):
        logger = Mlflow(store)
        loop = make_step_loop(Log(), keep, logger, step=LoopComponent)
        loop.load_state_dict(state, ignore=["keep"])
        loop.train(2)
        assert first.run_id == logger.run_id
        assert EXPECTED == history(logger)
    assert "FINISHED" == run_of(first).info.status


def test_a_second_run_of_a_loop_is_the_same_run(store):
    """Its steps continue."""
    logger = Mlflow(store)
    loop = make_step_loop(Log(), logger, step=LoopComponent)
    loop.train(1)
    loop.train(1)
    assert [1, 2, 3, 3, 4, 5, 6, 6] == [step for step, _ in history(logger)]


def test_a_server_has_what_is_logged(server):
    """A run through HTTP, with an artifact."""
    logger = train(Mlflow(server.uri, experiment="remote"), n_epochs=2)
    assert EXPECTED == history(logger)
    client = MlflowClient(server.uri)
    assert ["manifest.json"] == [each.path for each in client.list_artifacts(logger.run_id)]
    assert "FINISHED" == run_of(logger).info.status


def test_a_server_that_is_killed_does_not_end_training(server, caplog):
    """What it has not taken is written when there is a server again."""
    logger = Mlflow(server.uri)

    def disturb(loop):
        logger.flush()
        if loop.epoch_num == 1:
            server.kill()
        elif loop.epoch_num == 3:
            server.start().wait()

    train(logger, act_at("on_epoch_begin", disturb), n_epochs=4)
    (message,) = caplog.messages
    assert message.startswith("mlflow: values cannot be written: MlflowException: API request")
    expected = [(step, step / 8) for step in range(1, 13)] + [(3, 0), (6, 1), (9, 2), (12, 3)]
    assert sorted(expected) == history(logger)
    assert "FINISHED" == run_of(logger).info.status
