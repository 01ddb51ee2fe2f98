"""What is in the files of a run that is offline."""

import functools
import json
import logging
import math
import time
from urllib.parse import urlsplit

import pytest
import torch
import wandb
from loops import act_at
from states import make_step_loop
from ttl_wandb import Wandb
from ttl_wandb.offline import OfflineFile, read_rows
from wandb.proto.wandb_internal_pb2 import Record

from ttl_core import ArgumentError, Logger, LoopComponent, use


class Log(LoopComponent):
    """Values of batches, the same name for an epoch, and others."""

    def __init__(self, **values):
        self.values = values

    def on_batch_end(self, loop):
        loop.log({"a": torch.tensor(loop.global_step / 8)} | self.values)

    def on_epoch_end(self, loop):
        loop.log({"a": loop.epoch_num}, level="epoch")


@pytest.fixture
def make_logger(tmp_path, settings):
    """Return a function that makes the component."""
    return functools.partial(Wandb, "project", directory=tmp_path, settings=settings)


def train(logger, *others, n_epochs=1, **values):
    """Train, and return the component."""
    make_step_loop(Log(**values), *others, logger, step=LoopComponent).train(n_epochs)
    return logger


def flush(loop):
    """Let all loggers write what they have."""
    for component in loop.components:
        if isinstance(component, Logger):
            component.flush()


def files_of(logger):
    """Return the files of a run, which wandb's process completes a moment after it has ended."""
    files = sorted(logger.directory.glob(f"wandb/offline-run-*-{logger.run_id}*/*.wandb"))
    for file in files:
        for _ in range(200):
            records = map(Record.FromString, OfflineFile(file).new_records())
            if any(record.HasField("exit") for record in records):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"{file} is not complete")
    return files


def rows(logger):
    """Return the rows of a run: their numbers, and their values by name."""
    return [
        (number, {name: json.loads(value) for name, value in row.items()})
        for file in files_of(logger)
        for number, row in read_rows(file)
    ]


def values(logger, name="train/a"):
    """Return the (step, value) pairs of a name."""
    return [(row["global_step"], row[name]) for _, row in rows(logger) if name in row]


EXPECTED = [*((i, i / 8) for i in (1, 2, 3)), (3, 0), *((i, i / 8) for i in (4, 5, 6)), (6, 1)]


def test_numbers_are_rows_with_the_steps_of_the_loop(make_logger, caplog):
    """Those of batches and of epochs; where there is no key, the run is offline and says so."""
    caplog.set_level(logging.INFO, "ttl_wandb")
    logger = train(make_logger(), n_epochs=2)
    assert EXPECTED == values(logger)
    assert list(range(8)) == [number for number, _ in rows(logger)]
    (message,) = [text for text in caplog.messages if text.startswith("wandb:")]
    assert message.startswith("wandb: there is no key for https://")
    assert f"so the run is offline. To upload it later: wandb sync {logger.directory}" in message


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "0" * 40}, "online"),
        ({"WANDB_MODE": "offline"}, None),
    ],
    ids=str,
)
def test_the_mode_is_chosen_by_the_environment(monkeypatch, variables, mode):
    """It is online where there is a key, unless WANDB_MODE says something else."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mode == Wandb()._default_mode()


def test_a_key_in_the_file_netrc_is_found(monkeypatch, tmp_path):
    """As wandb login leaves it there."""
    host = urlsplit(wandb.Settings().base_url).netloc
    (tmp_path / "netrc").write_text(f"machine {host} login user password {'0' * 40}\n")
    assert "online" == Wandb()._default_mode()


@pytest.mark.parametrize(
    ("raised", "code"), [(None, 0), (ValueError, 1), (KeyboardInterrupt, 130)], ids=str
)
def test_the_run_ends_with_an_exit_code(make_logger, monkeypatch, raised, code):
    """An exception is a failure; ctrl-C has the code of a shell."""
    codes = []
    finish = wandb.Run.finish
    monkeypatch.setattr(
        wandb.Run,
        "finish",
        lambda run, exit_code: codes.append(exit_code) or finish(run, exit_code),
    )

    def fail(loop):
        if raised:
            raise raised

    logger = make_logger()
    if raised:
        with pytest.raises(raised):
            train(logger, act_at("on_train_end", fail))
    else:
        train(logger)
    assert [code] == codes
    assert 4 == len(rows(logger))


def test_the_run_is_described(settings, monkeypatch, tmp_path):
    """Its configuration and its manifest; it has the name of its folder."""
    given = {}
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or init(**options))

    def set_folder(loop):
        loop.run_folder = tmp_path / "run-7"

    recorder = use("wandb", directory=tmp_path, settings=settings, every=3)
    loop = make_step_loop(act_at("on_train_begin", set_folder), Log(), recorder)
    loop.train(1)
    assert "run-7" == given["name"]
    assert 3 == given["config"]["wandb.every"]
    assert loop.manifest() == given["config"]["manifest"]


def test_values_that_are_not_finite_stay(make_logger):
    """NaN and infinity are values of wandb too; integers beyond 64 bits are floats."""
    logger = train(make_logger(), nan=math.nan, inf=-math.inf, big=2**64, huge=10**400)
    assert all(math.isnan(value) for _, value in values(logger, "train/nan"))
    assert [(step, -math.inf) for step in (1, 2, 3)] == values(logger, "train/inf")
    assert [(step, 2.0**64) for step in (1, 2, 3)] == values(logger, "train/big")
    assert [(step, math.inf) for step in (1, 2, 3)] == values(logger, "train/huge")


def test_names_and_values_that_wandb_refuses_are_messages(make_logger, caplog):
    """A reserved name is written as another one, a text is left out; each is said once."""

    def log(loop):
        loop.log({"_step": 1, "a.b\ud800": 2, "note": "all is well"}, level="epoch")

    logger = train(make_logger(mode="offline"), act_at("on_train_begin", log))
    assert [(0, 1)] == values(logger, "logged/_step")
    assert [(0, 2)] == values(logger, "a.b\\ud800")
    assert [
        "wandb: 'note' is not written: a str is no number",
        "wandb: '_step' is written as 'logged/_step': wandb takes no such name",
        "wandb: 'a.b\\ud800' is written as 'a.b\\\\ud800': wandb takes no such name",
    ] == [text for text in caplog.messages if text.startswith("wandb:")]


def test_a_resumed_run_has_each_value_once(make_logger):
    """From any safe point, in the same run, with numbers of rows that grow."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    first = train(make_logger(), keep, n_epochs=2)
    for state in tuple(states):
        logger = make_logger()
        loop = make_step_loop(Log(), keep, logger, step=LoopComponent)
        loop.load_state_dict(state, ignore=["keep"])
        loop.train(2)
        assert first.run_id == logger.run_id
        assert EXPECTED == values(logger)


def test_rows_that_a_kill_would_lose_are_in_the_state(make_logger, settings):
    """Those that wandb's process has taken and not yet written are logged again."""
    states = []
    keep = act_at("on_safe_point", lambda loop: states.append(loop.state_dict()))
    slow = {**settings, "x_transaction_log_flush_interval": 3600}
    first = train(make_logger(settings=slow), act_at("on_batch_end", flush), keep, n_epochs=2)
    for file in files_of(first):
        file.unlink()  # as if it had never been written
    logger = make_logger()
    loop = make_step_loop(Log(), keep, logger, step=LoopComponent)
    loop.load_state_dict(states[3], ignore=["keep"])
    loop.train(2)
    assert EXPECTED == values(logger)


def test_a_second_run_of_a_loop_is_the_same_run(make_logger):
    """Its rows continue."""
    logger = make_logger()
    loop = make_step_loop(Log(), logger, step=LoopComponent)
    loop.train(1)
    loop.train(1)
    assert [1, 2, 3, 3, 4, 5, 6, 6] == [step for step, _ in values(logger)]
    assert list(range(8)) == [number for number, _ in rows(logger)]


def test_a_file_that_is_cut_off_is_read_up_to_there(make_logger):
    """Also where a record is longer than a block."""
    logger = train(make_logger(), **{"x" * 40_000: 1})
    (file,) = files_of(logger)
    whole = file.read_bytes()
    assert [0, 1, 2, 3] == [number for number, _ in read_rows(file)]
    counts = set()
    for size in range(0, len(whole), 331):
        file.write_bytes(whole[:size])
        counts.add(len(list(read_rows(file))))
    assert {0, 1, 2, 3} <= counts


def test_rows_are_not_logged_twice_where_wandb_fails(make_logger, monkeypatch, caplog):
    """What it has not taken is logged again, and nothing else."""
    log, calls = wandb.Run.log, []

    def fail_once(run, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise ConnectionError("the service is gone")
        log(run, *args, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", fail_once)
    logger = make_logger()
    flush = act_at("on_epoch_end", lambda loop: logger.flush())
    assert EXPECTED == values(train(logger, flush, n_epochs=2))
    assert "wandb: values cannot be written: ConnectionError" in caplog.text


def test_a_mode_that_does_not_exist_is_refused():
    """The error says which there are."""
    with pytest.raises(ArgumentError, match="'online' or 'offline'"):
        Wandb(mode="ofline")
