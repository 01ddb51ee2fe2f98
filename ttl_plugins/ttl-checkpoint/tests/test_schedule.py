"""When checkpoints are saved, and which arguments are refused."""

import datetime
import time

import numpy
import pytest
from checkpoint_runs import (
    ENDS,
    CallAt,
    make_loop,
    manifests,
    names_in,
    positions,
    reasons,
)
from ttl_checkpoint import Checkpoint

from ttl_core import ArgumentError, LoopComponent
from ttl_core.testing import ComponentConformance

# -- in a run -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("epoch", ENDS),
        ("1 epoch", ENDS),
        ("2 epochs", [(2, 6)]),
        ("3 epochs", [(2, 6)]),
        (1, [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6)]),
        ("step", [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6)]),
        (2, [(0, 2), (1, 4), (2, 6)]),
        (numpy.int64(2), [(0, 2), (1, 4), (2, 6)]),
        ("2 steps", [(0, 2), (1, 4), (2, 6)]),
        (5, [(1, 5), (2, 6)]),
        (100, [(2, 6)]),
        ("10 minutes", [(2, 6)]),
        (datetime.timedelta(hours=1), [(2, 6)]),
    ],
    ids=str,
)
def test_saves_when_one_is_due(tmp_path, every, expected):
    """Checkpoints are saved after so many epochs, steps or minutes, and at the end of the run."""
    make_loop(tmp_path, every=every, keep=None).train(2)
    assert expected == positions(tmp_path)


@pytest.mark.parametrize("every", ["10 minutes", datetime.timedelta(minutes=10)], ids=str)
def test_saves_after_a_time(tmp_path, every, monkeypatch):
    """The time counts from the last checkpoint, and what is due is saved at a safe point."""
    minutes = iter(range(0, 10_000, 4))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = CallAt("on_batch_begin", lambda loop: now.__setitem__(0, 60.0 * next(minutes)))
    make_loop(tmp_path, clock, every=every, keep=None).train(3)
    # batches begin at 0, 4, 8, 12 ... minutes
    assert [(1, 4), (2, 7), (3, 9)] == positions(tmp_path)


def test_epochs_are_saved_after_their_validation(tmp_path):
    """With validation data a checkpoint of an epoch holds what was logged in validation."""

    class LogValid(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"n": loop.epoch_num}, level="epoch")

    make_loop(tmp_path, LogValid(), valid_data=ComponentConformance.make_data(1)).train(2)
    expected = [{"train/n": 0, "valid/n": 0}, {"train/n": 1, "valid/n": 1}]
    assert expected == [manifest["metrics"] for manifest in manifests(tmp_path)]
    assert ENDS == positions(tmp_path)


@pytest.mark.parametrize(
    "every",
    [
        *(0, -1, 1.5, True, None, [1], "", "epok", "0 epochs", "2  steps", "1.5 minutes"),
        *("3 hours", datetime.timedelta(0), datetime.timedelta(seconds=-1)),
    ],
    ids=repr,
)
def test_refuses_an_unusable_interval(every):
    """The error lists what is understood."""
    with pytest.raises(ArgumentError) as caught:
        Checkpoint("runs/a", every=every)
    expected = (
        f"every is {every!r}, but has to be 'epoch', a number of steps from 1, a timedelta, or one "
        "such as '2 epochs', '500 steps' or '10 minutes'"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"directory": ""}, "directory is '', but has to be a path, as 'runs/a'"),
        *[
            (
                {"keep": keep},
                f"keep is {keep!r}, but has to be a whole number from 2, so that one is left if "
                "the newest is found corrupt; None keeps all",
            )
            for keep in (0, 1, -3, True, 2.0, "3")
        ],
        ({"best": 1}, "best is 1, but has to be the name of a metric, as 'valid/loss'"),
        (
            {"mode": "maximum"},
            "mode is 'maximum', but has to be 'min' or 'max'. Did you mean 'max'?",
        ),
        ({"on_failure": "ignore"}, "on_failure is 'ignore', but has to be 'raise' or 'warn'"),
        ({"resume": True}, "resume is True, but has to be 'auto', 'never', 'best' or a path"),
        ({"resume": None}, "resume is None, but has to be 'auto', 'never', 'best' or a path"),
    ],
    ids=str,
)
def test_refuses_unusable_arguments(config, text):
    """Each error shows the value and what is expected."""
    with pytest.raises(ArgumentError) as caught:
        Checkpoint(**{"directory": "runs/a", **config})
    assert text == str(caught.value)


def test_creates_no_directory_before_it_trains(tmp_path):
    """Creating the component, or testing with it, writes nothing."""
    loop = make_loop(tmp_path / "a" / "b")
    loop.test(ComponentConformance.make_data(1))
    assert [] == names_in(tmp_path)
    loop.train(1)
    assert ["000001-epoch-1-step-3"] == names_in(tmp_path / "a" / "b")


# -- at the end of a run --------------------------------------------------------------------


def test_saves_where_a_run_is_stopped(tmp_path):
    """A run that is stopped at a safe point has its last checkpoint there."""
    stop = CallAt("on_safe_point", lambda loop: loop.global_step == 5 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    assert ([(1, 3), (1, 5)], ["due", "end"]) == (positions(tmp_path), reasons(tmp_path))


def test_saves_nothing_where_a_run_is_stopped_in_a_batch(tmp_path):
    """After a stop elsewhere than at a safe point, there is no state to resume from."""
    stop = CallAt("on_loss_compute", lambda loop: loop.global_step == 4 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    assert [(1, 3)] == positions(tmp_path)


@pytest.mark.parametrize(("n_optim_steps", "expected"), [(4, [(1, 3), (2, 4)]), (6, ENDS)])
def test_saves_where_the_last_step_is_taken(tmp_path, n_optim_steps, expected):
    """The epoch of the last step ends there, and is saved as one."""
    make_loop(tmp_path).train(n_optim_steps=n_optim_steps)
    assert expected == positions(tmp_path)


def test_saves_the_end_once(tmp_path):
    """A state that was saved at the last safe point is not saved again."""
    make_loop(tmp_path, every=1, keep=None).train(2)
    assert 6 == len(names_in(tmp_path))
    assert ["due"] * 6 == reasons(tmp_path)


def test_saves_the_end_of_each_call_of_train(tmp_path):
    """Calls of train() in one script share the directory, and numbers continue."""
    loop = make_loop(tmp_path, every=100, keep=None)
    loop.train(1)
    loop.train(n_optim_steps=2)
    expected = ["000001-epoch-1-step-3", "000002-epoch-2-step-5"]
    assert expected == names_in(tmp_path)


def test_a_checkpoint_that_becomes_due_in_an_epoch_can_be_saved_at_its_end(tmp_path):
    """With mid_epoch=False there are checkpoints at the ends of epochs only, and only if due."""
    make_loop(tmp_path, every=4, mid_epoch=False, keep=None).train(4)
    assert [(2, 6), (3, 9), (4, 12)] == positions(tmp_path)
