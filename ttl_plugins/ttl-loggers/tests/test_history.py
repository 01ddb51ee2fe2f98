"""The behaviour of `history`."""

import sys

import pytest
import torch
from loops import act_at
from recording import StateRecorder
from ttl_loggers import History

from ttl_core import PluginError, TrainTestLoop


def make_loop(*components, valid_data=(7,)):
    """Return a loop with a history at its end."""
    return TrainTestLoop(torch.nn.Identity(), [*components, History()], [0, 1], valid_data)


def expected_rows(n_epochs):
    """Return the rows of a run."""
    return [
        {"epoch": i, "step": 2 * i + 2, "train/last": 1, "valid/last": 7} for i in range(n_epochs)
    ]


def test_there_is_a_row_for_each_epoch(log):
    """Values of batches are left out."""
    loop = make_loop(log)
    loop.train(2)
    assert expected_rows(2) == loop.components["history"].rows


def test_rows_can_be_read_within_a_run(log):
    """They are up to date."""
    seen = []
    loop = make_loop(log)
    history = loop.components["history"]
    look = act_at("on_safe_point", lambda loop: seen.append([dict(row) for row in history.rows]))
    loop.components.append(look)
    loop.train(1)
    assert [[], [{"epoch": 0, "step": 2, "train/last": 1}], expected_rows(1)] == seen


def test_a_test_without_training_has_a_row(log):
    """Its epoch is 0."""
    loop = make_loop(log)
    loop.test([3])
    assert [{"epoch": 0, "step": 0, "test/last": 3}] == loop.components["history"].rows


def test_a_resumed_run_has_the_rows_of_a_whole_one(log):
    """The rows are part of the state."""
    recorder = StateRecorder()
    make_loop(log, recorder).train(2)
    for state in [*recorder.states]:  # which grows
        loop = make_loop(log, recorder)
        loop.load_state_dict(state)
        loop.train(2)
        assert expected_rows(2) == loop.components["history"].rows


def test_a_data_frame_has_a_column_for_each_name(log):
    """Without rows it has those of the epoch and the step."""
    loop = make_loop(log)
    history = loop.components["history"]
    assert ["epoch", "step"] == list(history.to_pandas().columns)
    loop.train(2)
    loop.test([3])
    frame = history.to_pandas()
    assert [1.0, 1.0] == frame["train/last"].dropna().tolist()
    assert [3.0] == frame["test/last"].dropna().tolist()


def test_without_pandas_the_error_says_what_to_do(monkeypatch):
    """It is an ImportError too."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PluginError, match="pip install pandas") as caught:
        History().to_pandas()
    assert isinstance(caught.value, ImportError)
