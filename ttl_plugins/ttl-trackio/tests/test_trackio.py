"""What Trackio's own reader finds in the store."""

import json
import math
import sqlite3

import pytest
import torch
from loops import act_at
from states import make_step_loop
from trackio.sqlite_storage import SQLiteStorage
from ttl_trackio import Trackio

from ttl_core import ArgumentError, LoopComponent


class Log(LoopComponent):
    """Values of batches, the same name for an epoch, and others."""

    def __init__(self, **values):
        self.values = values

    def on_batch_end(self, loop):
        loop.log({"a": torch.tensor(loop.global_step / 8)} | self.values)

    def on_epoch_end(self, loop):
        loop.log({"a": loop.epoch_num}, level="epoch")


def train(*others, n_epochs=1, **values):
    """Train, and return the component."""
    logger = Trackio("project")
    make_step_loop(Log(**values), *others, logger, step=LoopComponent).train(n_epochs)
    return logger


def values(logger, name="train/a"):
    """Return the (step, value) pairs of a name."""
    rows = SQLiteStorage.get_logs(logger.project, run_id=logger.run_id)
    return [(row["step"], row[name]) for row in rows if name in row]


EXPECTED = [*((i, i / 8) for i in (1, 2, 3)), (3, 0), *((i, i / 8) for i in (4, 5, 6)), (6, 1)]


def test_numbers_are_rows_at_the_steps_of_the_loop():
    """Those of batches and of epochs, each once."""
    assert EXPECTED == values(train(n_epochs=2))


def test_the_run_is_described(tmp_path):
    """Its configuration and its manifest; it has the name of its folder."""

    def set_folder(loop):
        loop.run_folder = tmp_path / "run-7"

    logger = Trackio("project", every=3)
    loop = make_step_loop(act_at("on_train_begin", set_folder), Log(), logger)
    loop.train(1)
    (record,) = SQLiteStorage.get_run_records("project")
    assert ("run-7", logger.run_id) == (record["name"], record["id"])
    with sqlite3.connect(SQLiteStorage.get_project_db_path("project")) as store:
        ((config,),) = store.execute("SELECT config FROM configs")
    store.close()
    assert "step, part, log, trackio" == json.loads(config)["components"]
    assert loop.manifest() == json.loads(config)["manifest"]


def test_values_that_are_not_finite_stay():
    """NaN and infinity are values of Trackio too; integers beyond 64 bits are floats."""
    logger = train(nan=math.nan, inf=math.inf, big=2**64, huge=-(10**400))
    assert all(math.isnan(value) for _, value in values(logger, "train/nan"))
    assert [(step, math.inf) for step in (1, 2, 3)] == values(logger, "train/inf")
    assert [(step, 2.0**64) for step in (1, 2, 3)] == values(logger, "train/big")
    assert [(step, -math.inf) for step in (1, 2, 3)] == values(logger, "train/huge")


def test_names_and_values_that_trackio_refuses_are_messages(caplog):
    """A reserved name is written as another one, a text is left out; each is said once."""

    def log(loop):
        loop.log({"step": 1, "\ud800": 2, "note": "all is well"}, level="epoch")

    logger = train(act_at("on_train_begin", log))
    assert [(0, 1)] == values(logger, "__step")
    assert [(0, 2)] == values(logger, "\\ud800")
    assert [
        "trackio: 'note' is not written: a str is no number",
        "trackio: 'step' is written as '__step': Trackio refuses the name",
        "trackio: '\\ud800' is written as '\\\\ud800': Trackio refuses the name",
    ] == caplog.messages


def test_a_resumed_run_has_each_value_once():
    """From any safe point, in the same run, also in the midst of the values of a step."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    first = train(keep, n_epochs=2)
    for state in tuple(states):
        logger = Trackio("project")
        loop = make_step_loop(Log(), keep, logger, step=LoopComponent)
        loop.load_state_dict(state, ignore=["keep"])
        loop.train(2)
        assert (first.run_id, first.run_name) == (logger.run_id, logger.run_name)
        assert EXPECTED == values(logger)


def test_a_second_run_of_a_loop_is_the_same_run():
    """Its steps continue."""
    logger = Trackio("project")
    loop = make_step_loop(Log(), logger, step=LoopComponent)
    loop.train(1)
    loop.train(1)
    assert [1, 2, 3, 3, 4, 5, 6, 6] == [step for step, _ in values(logger)]


def test_a_store_that_fails_does_not_end_training(monkeypatch, caplog):
    """What it has not taken is written when it works again."""
    bulk_log = SQLiteStorage.bulk_log
    calls = []

    def fail_once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise sqlite3.OperationalError("disk I/O error")
        bulk_log(*args, **kwargs)

    monkeypatch.setattr(SQLiteStorage, "bulk_log", staticmethod(fail_once))
    assert EXPECTED == values(train(n_epochs=2))
    (message,) = caplog.messages
    assert message.startswith("trackio: values cannot be written: OperationalError: disk I/O error")


@pytest.mark.parametrize("project", ["", None, " "])
def test_a_project_without_a_name_is_refused(project):
    """The error shows what was given."""
    with pytest.raises(ArgumentError, match="project is"):
        Trackio(project)


def test_a_project_that_trackio_refuses_is_an_error_before_training():
    """The error has Trackio's reason."""
    loop = make_step_loop(Trackio("model_configs"))
    with pytest.raises(ArgumentError, match="trackio refuses the project 'model_configs': Project"):
        loop.train(1)
