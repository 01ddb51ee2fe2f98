"""loop.log(): names, levels, and what is kept in loop.metrics."""

from __future__ import annotations

import pytest
import torch
from loops import make_component, make_loop
from recording import LogRecorder

from ttl_core import ArgumentError, batches


def test_names_get_the_prefix_of_their_epoch():
    """The names of what is logged inside an epoch begin with its phase."""
    logger = LogRecorder()
    loop = make_loop(make_component(on_epoch_end=lambda loop: loop.log({"loss": 1})), logger)
    loop.train(n_epochs=1)
    loop.test([])
    names = [name for metrics, _ in logger.logged for name in metrics]
    assert ["train/loss", "valid/loss", "test/loss"] == names


def test_names_that_are_made_up_for_each_step_get_the_prefix_too(monkeypatch):
    """Only some full names are kept."""
    monkeypatch.setattr(batches, "_MAX_NAMES", 3)
    monkeypatch.setattr(batches, "_full_names", {})
    logger = LogRecorder()
    log = make_component(on_epoch_end=lambda loop: loop.log({f"a{i}": i for i in range(9)}))
    make_loop(log, logger).test([])
    assert {f"test/a{i}": i for i in range(9)} == logger.logged[0][0]
    assert 3 == len(batches._full_names["test/"])


@pytest.mark.parametrize(
    ("valid_data", "point", "given", "fix"),
    [
        ([0], "on_batch_end", "train/rate", "'rate'"),
        ({"easy": [0]}, "on_epoch_end", "valid/easy/rate", "'rate'"),
    ],
)
def test_a_name_that_has_the_phase_already_warns_once(monkeypatch, valid_data, point, given, fix):
    """It would have it twice: the warning shows both names, and what to write."""
    monkeypatch.setattr(batches, "_full_names", {})

    def log(loop):
        if loop.epoch_desc == given.partition("/")[0]:
            loop.log({given: 1})

    loop = make_loop(make_component(**{point: log}), train_data=[0, 0], valid_data=valid_data)
    with pytest.warns(
        UserWarning, match=f"{given}'. Write loop.log\\({{{fix}: value}}\\)"
    ) as caught:
        loop.train(n_epochs=2)
    ours = [warning for warning in caught if "log() was" in str(warning.message)]
    assert [__file__] == [warning.filename for warning in ours]


@pytest.mark.parametrize("point", ["on_train_begin", "on_safe_point", "on_train_end"])
def test_names_get_no_prefix_outside_epochs(point):
    """What is logged before, between or after epochs keeps its name."""
    logger = LogRecorder()
    logging = make_component(**{point: lambda loop: loop.log({"lr": 1})})
    make_loop(logging, logger, train_data=[0]).train(n_epochs=1)
    assert {"lr"} == {name for metrics, _ in logger.logged for name in metrics}


def test_a_logged_tensor_is_detached_and_not_copied():
    """on_log gets tensors without their graph, in the same memory."""
    logger, loss = LogRecorder(), torch.ones(1, requires_grad=True) * 2
    make_loop(logger).log({"loss": loss})
    logged = logger.logged[0][0]["loss"]
    assert (False, loss.data_ptr()) == (logged.requires_grad, logged.data_ptr())


def test_only_epoch_level_values_are_kept():
    """loop.metrics has the newest values of level "epoch"."""
    loop = make_loop()
    loop.log({"loss": 1})
    loop.log({"accuracy": 2}, level="epoch")
    loop.log({"accuracy": 3}, level="epoch")
    assert {"accuracy": 3} == loop.metrics


def test_metrics_are_kept_before_on_log():
    """In on_log, loop.metrics already has the new values."""
    seen = []
    loop = make_loop(make_component(on_log=lambda loop: seen.append(dict(loop.metrics))))
    loop.log({"loss": 1}, level="epoch")
    assert [{"loss": 1}] == seen


@pytest.mark.parametrize(("arguments", "level"), [({}, "batch"), ({"level": "epoch"}, "epoch")])
def test_on_log_gets_the_level(arguments, level):
    """The level is "batch" by default."""
    logger = LogRecorder()
    make_loop(logger).log({"loss": 1}, **arguments)
    assert [({"loss": 1}, level)] == logger.logged


def test_an_unknown_level_is_refused():
    """A level other than "batch" and "epoch" is an error."""
    with pytest.raises(ArgumentError, match="'run', but has to be 'batch' or 'epoch'"):
        make_loop().log({}, level="run")


def test_a_name_that_is_no_text_is_an_argument_error():
    """It says which."""
    loop = make_loop(make_component(on_log=lambda loop, metrics, level: None))
    with pytest.raises(ArgumentError, match="a value named 1, but names are text"):
        loop.log({1: 2.0})
