"""What the options of `checkpoint` do."""

import copy
import datetime
import enum
import json
import math
import signal
import tempfile
import time
import warnings
from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import NaiveState
from torch.utils.data import DataLoader, TensorDataset
from ttl_checkpoint import Checkpoint, CheckpointError
from ttl_checkpoint.store import Store, read, verify

from ttl_core import (
    ArgumentError,
    LoopComponent,
    RunError,
    SeededSampler,
    StateError,
    TrainTestLoop,
    hookimpl,
    use,
)
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")

N_BATCHES = 3


class Log(LoopComponent):
    """Log one value after the other at the ends of training epochs."""

    def __init__(self, *values, name="score"):
        self.values = values
        self.metric = name

    def on_epoch_end(self, loop):
        if loop.is_training and self.values:
            loop.log({self.metric: self.values[loop.epoch_num % len(self.values)]}, level="epoch")


class Do(LoopComponent):
    """Do something at one point."""

    def __init__(self, point, action):
        setattr(self, point, lambda loop: action(loop))


class Announced(LoopComponent):
    """Note the checkpoints that are announced, and whether they are whole by then."""

    def __init__(self):
        self.paths = []

    @hookimpl
    def checkpoint_saved(self, loop, path):
        verify(path)
        self.paths.append(path)


def make_loop(directory, *others, data=None, valid_data=None, **config):
    """Return a loop of plain steps that saves into a directory."""
    saver = Checkpoint(directory, **{"signals": False, **config})
    return TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), *others, saver],
        ComponentConformance.make_data(N_BATCHES) if data is None else data,
        valid_data,
    )


def saved(directory):
    """Return the names of what is in a directory, in order, but for hidden files."""
    return sorted(path.name for path in Path(directory).iterdir() if path.name[0] != ".")


def places(directory):
    """Return epoch and step of the checkpoints in a directory, in the order they were saved."""
    manifests = [verify(path) for path in Store(directory).everything()]
    return [(manifest["epoch"], manifest["step"]) for manifest in manifests]


def reasons(directory):
    """Return why the checkpoints of a directory were saved, in order."""
    return [verify(path)["reason"] for path in Store(directory).everything()]


def newest(directory):
    """Return the path of the newest checkpoint."""
    return Store(directory).checkpoints()[0]


def weights(loop):
    """Return the weights of a loop as a list of numbers, bit for bit."""
    return [value.tolist() for value in loop.model.state_dict().values()]


# -- when -----------------------------------------------------------------------------------

ENDS = [(1, 3), (2, 6)]


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
        ("2 steps", [(0, 2), (1, 4), (2, 6)]),
        (5, [(1, 5), (2, 6)]),
        (100, [(2, 6)]),
        ("10 minutes", [(2, 6)]),
        (datetime.timedelta(hours=1), [(2, 6)]),
    ],
    ids=str,
)
def test_saves_when_one_is_due(tmp_path, every, expected):
    """After so many epochs, steps or minutes, and where the run ends."""
    make_loop(tmp_path, every=every, keep=None).train(2)
    assert expected == places(tmp_path)


@pytest.mark.parametrize("every", ["10 minutes", datetime.timedelta(minutes=10)], ids=str)
def test_saves_after_a_time(tmp_path, every, monkeypatch):
    """The time counts from the last checkpoint, and what is due is saved at a safe point."""
    minutes = iter(range(0, 10_000, 4))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Do("on_batch_begin", lambda loop: now.__setitem__(0, 60.0 * next(minutes)))
    make_loop(tmp_path, clock, every=every, keep=None).train(3)
    # batches begin at 0, 4, 8, 12 ... minutes
    assert [(1, 4), (2, 7), (3, 9)] == places(tmp_path)


def test_epochs_are_saved_when_they_have_been_validated(tmp_path):
    """With validation data a checkpoint of an epoch holds what was logged in validation."""

    class LogValid(LoopComponent):
        def on_epoch_end(self, loop):
            loop.log({"n": loop.epoch_num}, level="epoch")

    make_loop(tmp_path, LogValid(), valid_data=ComponentConformance.make_data(1)).train(2)
    manifests = [verify(path) for path in Store(tmp_path).everything()]
    expected = [{"train/n": 0, "valid/n": 0}, {"train/n": 1, "valid/n": 1}]
    assert expected == [manifest["metrics"] for manifest in manifests]
    assert ENDS == places(tmp_path)


@pytest.mark.parametrize(
    "every",
    [
        *(0, -1, 1.5, True, None, [1], "", "epok", "0 epochs", "2  steps", "1.5 minutes"),
        *("3 hours", datetime.timedelta(0), datetime.timedelta(seconds=-1)),
    ],
    ids=repr,
)
def test_refuses_what_says_no_time(every):
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
        ({"directory": ""}, "directory is '', no path such as 'runs/a'"),
        ({"directory": None}, "directory is None, no path such as 'runs/a'"),
        *[
            (
                {"keep": keep},
                f"keep is {keep!r}, but has to be at least 2, so that one is left if the newest "
                "is found corrupt; None keeps all",
            )
            for keep in (0, 1, -3, True, 2.0, "3")
        ],
        ({"best": 1}, "best is 1, no name of a metric such as 'valid/loss'"),
        ({"mode": "maximum"}, "mode is 'maximum', neither 'min' nor 'max'"),
        ({"on_failure": "ignore"}, "on_failure is 'ignore', neither 'raise' nor 'warn'"),
        ({"resume": True}, "resume is True, neither 'auto', 'never' nor a path"),
        ({"resume": None}, "resume is None, neither 'auto', 'never' nor a path"),
    ],
    ids=str,
)
def test_refuses_unusable_arguments(config, text):
    """Each error has the value and what is expected."""
    with pytest.raises(ArgumentError) as caught:
        Checkpoint(**{"directory": "runs/a", **config})
    assert text == str(caught.value)


def test_makes_no_directory_before_it_trains(tmp_path):
    """Making the component, or testing with it, writes nothing."""
    loop = make_loop(tmp_path / "a" / "b")
    loop.test(ComponentConformance.make_data(1))
    assert [] == saved(tmp_path)
    loop.train(1)
    assert ["000001-epoch-1-step-3"] == saved(tmp_path / "a" / "b")


# -- where a run ends -----------------------------------------------------------------------


def test_saves_where_a_run_is_stopped(tmp_path):
    """A run that is stopped at a safe point has its last checkpoint there."""
    stop = Do("on_safe_point", lambda loop: loop.global_step == 5 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    assert ([(1, 3), (1, 5)], ["due", "end"]) == (places(tmp_path), reasons(tmp_path))


def test_saves_nothing_where_a_run_is_stopped_in_a_batch(tmp_path):
    """Elsewhere a stop leaves nothing to go on from."""
    stop = Do("on_loss_compute", lambda loop: loop.global_step == 4 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    assert [(1, 3)] == places(tmp_path)


@pytest.mark.parametrize(("n_optim_steps", "expected"), [(4, [(1, 3), (2, 4)]), (6, ENDS)])
def test_saves_where_the_last_step_is_taken(tmp_path, n_optim_steps, expected):
    """The epoch of the last step ends there, and is saved as one."""
    make_loop(tmp_path).train(n_optim_steps=n_optim_steps)
    assert expected == places(tmp_path)


def test_saves_the_end_once(tmp_path):
    """What was saved at the last safe point is not saved again."""
    make_loop(tmp_path, every=1, keep=None).train(2)
    assert 6 == len(saved(tmp_path))
    assert ["due"] * 6 == reasons(tmp_path)


def test_saves_the_end_of_each_call_of_train(tmp_path):
    """Calls of train() in one script share the directory, and numbers go on."""
    loop = make_loop(tmp_path, every=100, keep=None)
    loop.train(1)
    loop.train(n_optim_steps=2)
    expected = ["000001-epoch-1-step-3", "000002-epoch-2-step-5"]
    assert expected == saved(tmp_path)


# -- which are kept -------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "n"), [(2, 2), (3, 3), (5, 5), (9, 6), (None, 6)])
def test_keeps_the_newest(tmp_path, keep, n):
    """Older ones are removed, as whole directories."""
    make_loop(tmp_path, every=1, keep=keep).train(2)
    expected = [(0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6)]
    assert expected[-n:] == places(tmp_path)


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("min", [3, 1, 2, 4, 5], [2, 4, 5]),
        ("max", [1, 5, 2, 3, 4], [2, 4, 5]),
        ("min", [1, 2, 3, 4, 5], [1, 4, 5]),
        ("min", [5, 4, 3, 2, 1], [4, 5]),
        ("min", [2, 2, 2, 2, 2], [1, 4, 5]),
        ("max", [math.nan, 1, math.nan, 0, math.nan], [2, 4, 5]),
        ("min", [-math.inf, 1, 2, 3, math.inf], [2, 4, 5]),
    ],
)
def test_keeps_the_best_besides(tmp_path, mode, values, expected):
    """The best one is kept however old it is; neither NaN nor infinity is ever the best."""
    make_loop(tmp_path, Log(*values), keep=2, best="train/score", mode=mode).train(5)
    assert expected == [epoch for epoch, _ in places(tmp_path)]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(2, 4), st.booleans())
def test_keeps_the_newest_and_the_best_of_any_values(values, keep, is_max):
    """Whatever is logged, the newest are there and the first of the best values."""
    mode, pick = ("max", max) if is_max else ("min", min)
    with tempfile.TemporaryDirectory() as directory:
        loop = make_loop(
            directory,
            Log(*map(torch.tensor, values)),
            keep=keep,
            best="train/score",
            mode=mode,
            data=ComponentConformance.make_data(1),
        )
        loop.train(len(values))
        epochs = range(1, len(values) + 1)
        expected = {*epochs[-keep:], 1 + values.index(pick(values))}
        assert expected == {epoch for epoch, _ in places(directory)}


def test_saves_whenever_the_metric_gets_better(tmp_path):
    """A better value is saved though no checkpoint is due."""
    make_loop(tmp_path, Log(3, 4, 2, 5), every=100, best="train/score").train(4)
    assert [(1, 3), (3, 9), (4, 12)] == places(tmp_path)
    assert ["best", "best", "end"] == reasons(tmp_path)
    assert [3, 2, None] == [verify(path)["best"] for path in Store(tmp_path).everything()]


def test_saves_the_best_of_what_is_validated_inside_an_epoch(tmp_path):
    """A value that is logged in the middle of an epoch is saved there, if it is better."""
    log = Do("on_batch_end", lambda loop: loop.log({"n": -loop.batch_num}, level="epoch"))
    make_loop(tmp_path / "a", log, every=100, best="train/n", keep=None).train(1)
    assert [(0, 1), (0, 2), (1, 3)] == places(tmp_path / "a")
    make_loop(tmp_path / "b", log, every=100, best="train/n", keep=None, mid_epoch=False).train(1)
    assert [(1, 3)] == places(tmp_path / "b")


def test_the_best_is_known_after_going_on(tmp_path):
    """A run that goes on compares with the best of before, and keeps it."""
    config = {"keep": 2, "best": "train/score"}
    make_loop(tmp_path, Log(3, 1, 2), **config).train(2)
    make_loop(tmp_path, Log(3, 1, 2, 5, 4, 6), **config).train(6)
    assert [2, 5, 6] == [epoch for epoch, _ in places(tmp_path)]


def test_what_is_worse_than_the_best_before_is_not_better(tmp_path):
    """The first value after going on is compared too."""
    config = {"keep": None, "best": "train/score"}
    make_loop(tmp_path, Log(3, 1), **config).train(2)
    make_loop(tmp_path, Log(3, 1, 2, 0), **config).train(4)
    assert [3, 1, None, 0] == [verify(path)["best"] for path in Store(tmp_path).everything()]


def test_what_is_saved_at_the_end_is_not_taken_for_the_best(tmp_path):
    """After a better value in the middle of an epoch, a stop later in it keeps both apart."""

    class LogThenStop(LoopComponent):
        def on_safe_point(self, loop):
            if loop.global_step == 2:
                loop.log({"x": 1.0}, level="epoch")
            if loop.global_step == 5:
                loop.stop()

    data = ComponentConformance.make_data(9)
    make_loop(tmp_path, LogThenStop(), best="train/x", data=data).train(1)
    assert [(0, 2), (0, 5)] == places(tmp_path)
    assert [1.0, None] == [verify(path)["best"] for path in Store(tmp_path).everything()]


def test_what_a_run_is_stopped_with_can_be_the_best(tmp_path):
    """A value that was logged just before the stop belongs to what is saved there."""
    stop = Do("on_safe_point", lambda loop: loop.global_step == 6 and loop.stop())
    make_loop(tmp_path, Log(3, 1), stop, best="train/score").train(9)
    assert [(1, 3), (2, 6)] == places(tmp_path)
    assert [3, 1] == [verify(path)["best"] for path in Store(tmp_path).everything()]


def test_says_so_if_nobody_logs_the_metric(tmp_path):
    """After the first whole epoch without it the run fails, and lists what was logged."""
    loop = make_loop(tmp_path, Log(1, name="loss"), best="train/los")
    with pytest.raises(RunError) as caught:
        loop.train(2)
    expected = (
        "checkpoint keeps the best by 'train/los', which nobody has logged at epoch level in a "
        "whole epoch. Did you mean 'train/loss'? Logged were: train/loss"
    )
    assert expected == str(caught.value)
    assert 3 == loop.global_step


def test_says_so_if_nobody_logs_anything(tmp_path):
    """A value that is logged at batch level only does not count."""
    with pytest.raises(RunError) as caught:
        make_loop(tmp_path, best="train/loss").train(2)
    expected = (
        "checkpoint keeps the best by 'train/loss', which nobody has logged at epoch level in a "
        "whole epoch. Logged were: none. The component metrics logs the mean loss"
    )
    assert expected == str(caught.value)


def test_waits_for_validation_before_it_says_so(tmp_path):
    """A metric of validation need not be there when training has ended."""

    class LogValid(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating:
                loop.log({"loss": 1.0}, level="epoch")

    valid_data = ComponentConformance.make_data(1)
    loop = make_loop(tmp_path, LogValid(), best="valid/loss", valid_data=valid_data)
    loop.train(1)
    assert ["best"] == reasons(tmp_path)


def test_a_metric_of_training_is_known_after_going_on_in_validation(tmp_path):
    """What was logged before the checkpoint need not be logged again after it."""

    class Interrupt(LoopComponent):
        def on_batch_begin(self, loop):
            if loop.is_validating:
                raise KeyboardInterrupt

    options = {"valid_data": ComponentConformance.make_data(1), "best": "train/score"}
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, Log(1), Interrupt(), **options).train(1)
    loop = make_loop(tmp_path, Log(1), **options)
    loop.train(1)
    assert (1, 3) == (loop.epoch_num, loop.global_step)


# -- going on -------------------------------------------------------------------------------


class Count(LoopComponent):
    """Count training batches."""

    n = 0

    def on_batch_end(self, loop):
        self.n += loop.is_training


class Interrupt(LoopComponent):
    """Interrupt a run after a number of steps, as if by ctrl-C."""

    def __init__(self, n):
        self.n = n

    def on_batch_begin(self, loop):
        if loop.is_training and loop.global_step == self.n:
            raise KeyboardInterrupt


def interrupt(directory, n, *others, **config):
    """Train until the run is interrupted after a number of steps."""
    with pytest.raises(KeyboardInterrupt):
        make_loop(directory, *others, Interrupt(n), **config).train(3)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("n", range(1, 9))
def test_the_same_script_goes_on(tmp_path, n, asynchronous):
    """Started again, it takes the steps that are left, and ends in the same bits."""
    config = {"every": 1, "asynchronous": asynchronous}
    whole = make_loop(tmp_path / "whole", **config)
    whole.train(3)
    interrupt(tmp_path / "part", n, **config)
    loop = make_loop(tmp_path / "part", count := Count(), **config)
    loop.train(3)
    assert (9 - n, 3, 9) == (count.n, loop.epoch_num, loop.global_step)
    assert weights(whole) == weights(loop)


def test_what_most_scripts_save_does_not_go_on():
    """The test above fails against what holds no position, and is not even copied."""
    whole = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), naive := NaiveState()],
        ComponentConformance.make_data(N_BATCHES),
    )
    copies = []
    whole.components.append(
        Do("on_safe_point", lambda loop: copies.append(copy.deepcopy(naive.states[-1])))
    )
    whole.train(3)
    assert all(
        torch.equal(state["model"]["0.weight"], whole.model[0].weight) for state in naive.states
    )
    for state in (naive.states[3], copies[3]):  # after the first batch of the second epoch
        rest = TrainTestLoop(
            ComponentConformance.make_model(),
            [Step(), NaiveState(resume_from=state)],
            ComponentConformance.make_data(N_BATCHES),
        )
        rest.train(3 - copies[3]["epoch_num"])
        assert weights(whole) != weights(rest)


def test_says_from_where_it_goes_on(tmp_path, caplog):
    """A message has the path; a run that begins anew says nothing."""
    make_loop(tmp_path).train(1)
    assert [] == caplog.messages
    path = newest(tmp_path)
    make_loop(tmp_path).train(2)
    assert [f"checkpoint: going on from {path}"] == caplog.messages


def test_a_run_that_had_ended_loads_and_returns(tmp_path):
    """Started again, a script that had ended trains nothing, saves nothing, and has the model."""
    whole = make_loop(tmp_path)
    whole.train(2)
    before = saved(tmp_path)
    loop = make_loop(tmp_path, count := Count())
    loop.train(2)
    assert (0, weights(whole), before) == (count.n, weights(loop), saved(tmp_path))


def test_a_run_that_had_been_stopped_loads_and_returns(tmp_path):
    """A stop is remembered, however many epochs the script asks for."""
    stop = Do("on_safe_point", lambda loop: loop.global_step == 4 and loop.stop())
    make_loop(tmp_path, stop).train(9)
    before = saved(tmp_path)
    loop = make_loop(tmp_path, count := Count())
    loop.train(9)
    assert (0, 4, before) == (count.n, loop.global_step, saved(tmp_path))


def test_a_script_with_more_epochs_goes_on(tmp_path):
    """n_epochs counts from the beginning: two are left of four."""
    make_loop(tmp_path).train(2)
    make_loop(tmp_path, count := Count()).train(4)
    assert 2 * N_BATCHES == count.n


def test_a_script_of_several_calls_goes_on(tmp_path):
    """Calls of train() before the one that was interrupted return at once."""

    def script(*others):
        loop = make_loop(tmp_path, *others, every=1)
        loop.train(1)
        loop.train(2)
        return loop

    with pytest.raises(KeyboardInterrupt):
        script(Interrupt(5))
    loop = script(count := Count())
    assert (4, 9, 3) == (count.n, loop.global_step, loop.epoch_num)


def test_a_test_before_training_sees_the_model(tmp_path):
    """A script that tests at first tests the model that it goes on with."""
    whole = make_loop(tmp_path)
    whole.train(1)
    seen = []
    loop = make_loop(tmp_path, Do("on_test_end", lambda loop: seen.append(weights(loop))))
    loop.test(ComponentConformance.make_data(1))
    assert [weights(whole)] == seen


def test_never_begins_anew_and_leaves_the_others_alone(tmp_path):
    """With resume="never" nothing is loaded, numbers go on, and only its own are removed."""
    make_loop(tmp_path, keep=None).train(3)
    first = saved(tmp_path)
    make_loop(tmp_path, count := Count(), resume="never", keep=2).train(4)
    assert 4 * N_BATCHES == count.n
    own = ["000006-epoch-3-step-9", "000007-epoch-4-step-12"]
    assert [*first, *own] == saved(tmp_path)


def test_removes_what_it_saved_before_it_went_on(tmp_path):
    """A run that goes on is the same run, so its earlier checkpoints count in `keep`."""
    for n_epochs in (2, 3, 4, 5):
        make_loop(tmp_path, keep=2).train(n_epochs)
    assert [4, 5] == [epoch for epoch, _ in places(tmp_path)]


@pytest.mark.parametrize("kind", [str, Path])
def test_goes_on_from_the_one_that_is_named(tmp_path, kind):
    """A path, also of another directory, is where to go on from, whatever else there is."""
    make_loop(tmp_path / "a", keep=None).train(3)
    first = Store(tmp_path / "a").checkpoints()[-1]
    loop = make_loop(tmp_path / "b", count := Count(), resume=kind(first))
    loop.train(3)
    assert (2 * N_BATCHES, 3) == (count.n, loop.epoch_num)
    assert ["000001-epoch-2-step-6", "000002-epoch-3-step-9"] == saved(tmp_path / "b")
    assert 3 == len(saved(tmp_path / "a"))


def test_an_earlier_one_of_the_same_directory_can_be_named(tmp_path):
    """Numbers go on, so that the newest is the one that was saved last."""
    make_loop(tmp_path, keep=None).train(3)
    first = Store(tmp_path).checkpoints()[-1]
    make_loop(tmp_path, resume=first, keep=None).train(2)
    assert [(1, 3), (2, 6), (3, 9), (2, 6)] == places(tmp_path)
    assert "000004-epoch-2-step-6" == newest(tmp_path).name


def test_one_that_is_not_there_is_an_error(tmp_path):
    """A path that is named has to be a checkpoint."""
    missing = tmp_path / "000001-epoch-1-step-3"
    with pytest.raises(CheckpointError, match=r"000001-epoch-1-step-3 .*No such file or directory"):
        make_loop(tmp_path, resume=missing).train(1)


def test_auto_is_a_path_if_it_is_one(tmp_path, monkeypatch):
    """Path("auto") is a directory of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="auto"):
        make_loop(tmp_path, resume=Path("auto")).train(1)


def test_says_which_component_is_missing_and_ignores_it_if_told(tmp_path):
    """What the loop refuses can be let pass by name."""

    class Memory(LoopComponent):
        name = "memory"

        def state_dict(self):
            return {"x": 1}

        def load_state_dict(self, state):
            pass

    make_loop(tmp_path, Memory()).train(1)
    with pytest.raises(StateError, match=r"the state holds component 'memory'.*ignore=\['memory'"):
        make_loop(tmp_path).train(2)
    loop = make_loop(tmp_path, ignore=["memory"])
    loop.train(2)
    assert 2 == loop.epoch_num


# -- data -----------------------------------------------------------------------------------


def shuffled(**options):
    """Return a loader of four batches in an order that nothing repeats, unless told otherwise."""
    inputs, targets = ComponentConformance.make_data(1)[0]
    dataset = TensorDataset(inputs.repeat(2, 1), targets.repeat(2))
    if "sampler" in options:
        return DataLoader(dataset, batch_size=3, sampler=options["sampler"](dataset))
    return DataLoader(dataset, batch_size=3, shuffle=True)


@pytest.mark.parametrize("every", [2, "2 steps", "10 minutes"])
def test_refuses_data_that_cannot_be_gone_on_with_before_the_first_batch(tmp_path, every):
    """The error has the line to change, and its note what else there is."""
    loop = make_loop(tmp_path, data=shuffled(), every=every)
    with pytest.raises(StateError) as caught:
        loop.train(1)
    assert "sampler=ttl_core.SeededSampler(dataset)" in str(caught.value)
    expected = "Or save at the ends of epochs only: use('checkpoint', ..., mid_epoch=False)"
    assert expected == caught.value.__notes__[0]
    assert 0 == loop.global_step
    assert [] == saved(tmp_path)


@pytest.mark.parametrize("config", [{}, {"every": 2, "mid_epoch": False}], ids=str)
def test_data_that_cannot_be_gone_on_with_are_fine_between_epochs(tmp_path, config):
    """With every="epoch", or where told so, a run goes on from the end of an epoch."""
    torch.manual_seed(0)
    whole = make_loop(tmp_path / "whole", data=shuffled(), **config)
    whole.train(3)
    torch.manual_seed(0)
    interrupt(tmp_path / "part", 6, data=shuffled(), **config)
    assert [(1, 4)] == places(tmp_path / "part")
    torch.manual_seed(1)
    loop = make_loop(tmp_path / "part", data=shuffled(), **config)
    loop.train(3)
    assert weights(whole) == weights(loop)


def test_what_gets_due_in_an_epoch_is_saved_at_its_end(tmp_path):
    """With mid_epoch=False there are checkpoints at the ends of epochs only, and only if due."""
    make_loop(tmp_path, every=4, mid_epoch=False, keep=None).train(4)
    assert [(2, 6), (3, 9), (4, 12)] == places(tmp_path)


def test_shuffled_data_of_a_seeded_sampler_are_gone_on_with(tmp_path):
    """With the line that the error shows, a run goes on from the middle of an epoch."""
    config = {"every": 1}
    whole = make_loop(tmp_path / "whole", data=shuffled(sampler=SeededSampler), **config)
    whole.train(3)
    interrupt(tmp_path / "part", 6, data=shuffled(sampler=SeededSampler), **config)
    loop = make_loop(tmp_path / "part", data=shuffled(sampler=SeededSampler), **config)
    loop.train(3)
    assert weights(whole) == weights(loop)


# -- failures -------------------------------------------------------------------------------


class Fail(LoopComponent):
    """Fail after a number of steps."""

    def __init__(self, n, error=ZeroDivisionError):
        self.n = n
        self.error = error

    def on_backward_pass(self, loop):
        if loop.global_step == self.n:
            raise self.error


def fail(directory, n, error=ZeroDivisionError, **config):
    """Train until a component fails after a number of steps, and return the loop."""
    loop = make_loop(directory, Fail(n, error), **config)
    with pytest.raises(error):
        loop.train(3)
    return loop


def test_leaves_what_there_was_at_a_failure(tmp_path, caplog):
    """On an exception there is a directory crash-..., with the state at the failure."""
    loop = fail(tmp_path, 4)
    assert ["000001-epoch-1-step-3", "crash-000002-epoch-1-step-4"] == saved(tmp_path)
    path = tmp_path / "crash-000002-epoch-1-step-4"
    state = read(path)
    assert weights(loop) == [value.tolist() for value in state["model"].values()]
    assert (None, "exception") == (state["position"], verify(path)["reason"])
    expected = f"checkpoint: {path} holds the state at the failure, to look into"
    assert [expected] == caplog.messages


def test_does_not_go_on_from_a_failure(tmp_path):
    """Started again, the script goes on from the safe point before."""
    fail(tmp_path, 4)
    loop = make_loop(tmp_path, count := Count())
    loop.train(3)
    assert (2 * N_BATCHES, 9) == (count.n, loop.global_step)


def test_refuses_to_go_on_from_a_failure_that_is_named(tmp_path):
    """What a failure left is there to be looked into, and the error says so."""
    fail(tmp_path, 4)
    loop = make_loop(tmp_path, resume=tmp_path / "crash-000002-epoch-1-step-4")
    with pytest.raises(StateError, match=r"not taken at a safe point.*there to be looked into"):
        loop.train(3)
    assert 0 == loop.global_step


def test_keeps_the_newest_two_failures(tmp_path):
    """Of directories crash-... there are two at most, and they take no place of others."""
    for n in (3, 4, 5, 6):
        fail(tmp_path, n, keep=2)
    crashes = [name for name in saved(tmp_path) if name.startswith("crash-")]
    assert ["crash-000004-epoch-1-step-5", "crash-000006-epoch-2-step-6"] == crashes
    assert ["000001-epoch-1-step-3", "000005-epoch-2-step-6"] == [
        name for name in saved(tmp_path) if not name.startswith("crash-")
    ]


def test_begins_anew_where_there_are_only_failures(tmp_path):
    """A run that failed before its first checkpoint begins anew."""
    fail(tmp_path, 1)
    assert ["crash-000001-epoch-0-step-1"] == saved(tmp_path)
    make_loop(tmp_path, count := Count()).train(1)
    assert N_BATCHES == count.n


def test_a_failure_at_a_safe_point_is_none_to_go_on_from(tmp_path):
    """Components were half-way through that point, so its state has no position either."""
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, Do("on_safe_point", lambda loop: 1 // 0)).train(1)
    assert read(tmp_path / "crash-000001-epoch-0-step-1")["position"] is None


def test_what_is_being_written_at_a_failure_is_announced(tmp_path):
    """An asynchronous checkpoint that is under way is waited for, and counts."""
    announced = Announced()
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, announced, Fail(4), every=1, asynchronous=True, keep=None).train(2)
    assert [(0, 1), (0, 2), (1, 3), (1, 4)] == places(tmp_path)[:4]
    assert Store(tmp_path).everything()[:4] == announced.paths


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_leaves_nothing_where_a_run_is_told_to_end(tmp_path, error):
    """Ctrl-C and exit are no failures."""
    fail(tmp_path, 1, error)
    assert [] == saved(tmp_path)


def test_a_state_that_cannot_be_saved_fails_before_work_starts(tmp_path):
    """What files cannot hold is found in on_train_begin, not at the first checkpoint."""

    class Memory(LoopComponent):
        def state_dict(self):
            return {"x": deque()}

        def load_state_dict(self, state):
            pass

    loop = make_loop(tmp_path, Memory())
    with pytest.raises(StateError, match=r"memory\.x is collections\.deque: return list"):
        loop.train(1)
    assert 0 == loop.global_step
    assert [] == saved(tmp_path)


# -- announcements --------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_announces_each_checkpoint(tmp_path, asynchronous):
    """checkpoint_saved fires for each, in order, when it is whole and on disk."""
    announced = Announced()
    make_loop(tmp_path, announced, every=1, keep=None, asynchronous=asynchronous).train(2)
    assert Store(tmp_path).everything() == announced.paths
    assert 6 == len(announced.paths)


def test_does_not_announce_what_a_failure_left(tmp_path):
    """A directory crash-... is none to count on."""
    announced = Announced()
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, announced, Fail(4)).train(2)
    assert ["000001-epoch-1-step-3"] == [path.name for path in announced.paths]


def test_announces_at_safe_points_and_at_the_end(tmp_path):
    """An asynchronous checkpoint is announced at a later safe point, never inside a batch."""
    moments = []

    class Note(LoopComponent):
        where = ""

        def on_batch_begin(self, loop):
            self.where = "batch"

        @hookimpl(tryfirst=True)
        def on_safe_point(self, loop):
            self.where = "safe point"

        @hookimpl(tryfirst=True)
        def on_train_end(self, loop):
            self.where = "end"

        @hookimpl
        def checkpoint_saved(self, loop, path):
            moments.append(self.where)

    make_loop(tmp_path, Note(), every=1, asynchronous=True).train(2)
    assert {"safe point", "end"} == set(moments)
    assert (6, "end") == (len(moments), moments[-1])


def test_announces_as_soon_as_one_is_written(tmp_path):
    """An asynchronous checkpoint is announced at the next safe point, not with the next one."""
    steps = []

    class Note(LoopComponent):
        @hookimpl
        def checkpoint_saved(self, loop, path):
            steps.append(loop.global_step)

    def wait(loop):
        if loop.global_step >= 50 and not steps:
            time.sleep(0.01)  # while it is written

    data = ComponentConformance.make_data(1) * 99
    config = {"every": 50, "asynchronous": True, "data": data}
    make_loop(tmp_path, Note(), Do("on_batch_begin", wait), **config).train(1)
    assert 50 < steps[0] < 99


# -- what is written ------------------------------------------------------------------------


def contents(directory):
    """Return what all checkpoints of a directory hold, but for what no two runs have alike."""
    found = {}
    for path in Store(directory).everything():
        manifest, state = verify(path), read(path)
        for name in ("created", "run", "files", "sha256"):
            del manifest[name]
        del state["components"]["checkpoint"]["run"]
        found[path.name] = repr(manifest), bits(state)
    return found


def bits(value):
    """Return a nested value written out so that every bit shows."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(bits, value))
    return repr(value)


def test_an_asynchronous_checkpoint_holds_the_same(tmp_path, monkeypatch):
    """Written while training goes on, on a slow disk, it holds what was there at its safe point."""
    options = {"every": 1, "keep": None, "best": "train/score"}
    make_loop(tmp_path / "sync", Log(3, 1), **options).train(2)
    write = Store.write
    wait = [0.0, 0.01, 0.03]

    def write_slowly(self, *args, **kwargs):
        wait.append(wait.pop(0))
        time.sleep(wait[-1])
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Store, "write", write_slowly)
    make_loop(tmp_path / "async", Log(3, 1), asynchronous=True, **options).train(2)
    assert 6 == len(saved(tmp_path / "sync"))
    assert contents(tmp_path / "sync") == contents(tmp_path / "async")


def test_training_goes_on_while_an_asynchronous_checkpoint_is_written(tmp_path, monkeypatch):
    """Only the next checkpoint, or the end, waits for the one before."""
    seen = []
    write = Store.write

    def write_late(self, *args, **kwargs):
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:  # until two batches have begun
            time.sleep(0.001)
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Store, "write", write_late)
    begun = Do("on_batch_begin", lambda loop: loop.global_step and seen.append(loop.global_step))
    data = ComponentConformance.make_data(6)
    announced = Announced()
    make_loop(tmp_path, begun, announced, every=4, asynchronous=True, data=data).train(1)
    assert [1, 2, 3, 4, 5] == seen
    assert [(0, 4), (1, 6)] == places(tmp_path)


def test_a_manifest_says_what_is_in_it(tmp_path):
    """It has the step, the epoch, the metrics as numbers, what ran and the surroundings."""
    values = {"a": torch.tensor([1.5]), "b": math.inf, "c": torch.ones(2), "d": 2, "e": math.nan}
    log = Do("on_epoch_end", lambda loop: loop.log(values, level="epoch"))
    loop = make_loop(tmp_path, log)
    loop.train(1)
    manifest = verify(newest(tmp_path))
    assert {
        "train/a": 1.5,
        "train/b": "inf",
        "train/d": 2.0,
        "train/e": "nan",
    } == manifest["metrics"]
    assert loop.manifest() == manifest["components"]
    assert (1, 3, "due", 1) == tuple(manifest[key] for key in ("epoch", "step", "reason", "format"))
    created = datetime.datetime.fromisoformat(manifest["created"])
    assert datetime.timedelta() <= datetime.datetime.now(datetime.UTC) - created
    assert str(torch.__version__) == manifest["environment"]["torch"]
    file = (newest(tmp_path) / "state.pt").stat()
    assert file.st_size == manifest["files"]["state.pt"]["bytes"]


def test_numbers_go_on_where_some_are_gone(tmp_path):
    """The next number is after the highest, of whatever kind, so that none comes twice."""
    make_loop(tmp_path, keep=None).train(2)
    (tmp_path / "000001-epoch-1-step-3").rename(tmp_path / "corrupt-000041-epoch-1-step-3")
    make_loop(tmp_path, keep=None).train(3)
    assert "000042-epoch-3-step-9" == newest(tmp_path).name


def test_leaves_other_files_alone(tmp_path):
    """What has no name of a checkpoint is neither read nor removed."""
    others = ["notes.txt", "1-epoch-1-step-1", "000001-epoch-1-step-3.bak", "last"]
    for name in others:
        (tmp_path / name).mkdir()
    make_loop(tmp_path, keep=2).train(4)
    assert set(others) <= set(saved(tmp_path))
    assert [(3, 9), (4, 12)] == places(tmp_path)


def test_a_configuration_of_another_type_can_be_loaded(tmp_path):
    """Whatever its configuration was given as, a run that saves can go on."""

    class Metric(enum.StrEnum):
        SCORE = "train/score"

    for n_epochs in (1, 2):
        spec = use("checkpoint", directory=tmp_path, best=Metric.SCORE, signals=False)
        loop = TrainTestLoop(
            ComponentConformance.make_model(),
            [Step(), Log(2, 1), spec],
            ComponentConformance.make_data(N_BATCHES),
        )
        loop.train(n_epochs)
    assert ENDS == places(tmp_path)


# -- several, and on and off ----------------------------------------------------------------


def test_two_need_directories_of_their_own(tmp_path):
    """A directory has one writer at a time; who comes second is told."""
    loop = make_loop(tmp_path)
    loop.components.append(Checkpoint(tmp_path / ".." / tmp_path.name, signals=False))
    with pytest.raises(RunError) as caught:
        loop.train(1)
    assert str(caught.value).startswith("another run, or another component of this one, saves into")
    assert str(caught.value).endswith("Give each a directory of its own")


def test_two_with_directories_of_their_own_work_side_by_side(tmp_path):
    """Each saves when its own is due; the hook fires for both."""
    announced = Announced()
    loop = make_loop(tmp_path / "a", announced, every=2, keep=None)
    loop.components.append(Checkpoint(tmp_path / "b", resume="never", signals=False))
    loop.train(2)
    assert ([(0, 2), (1, 4), (2, 6)], ENDS) == (places(tmp_path / "a"), places(tmp_path / "b"))
    assert 5 == len(announced.paths)


def test_a_directory_is_free_again_after_a_run(tmp_path):
    """However a run ended, another one may write there."""
    fail(tmp_path, 4)
    interrupt(tmp_path, 4)
    make_loop(tmp_path).train(1 + 1)
    make_loop(tmp_path, resume="never").train(1)
    assert 3 == len([name for name in saved(tmp_path) if not name.startswith("crash-")])


def switched_on_in_mid_run(directory, **config):
    """Return a loop whose checkpoints are switched on in the second batch."""

    def switch_on(loop):
        if loop.is_training and loop.global_step == 1:
            loop.components.enable("checkpoint")

    loop = make_loop(directory, Do("on_batch_begin", switch_on), **config)
    loop.components.disable("checkpoint")
    return loop


def test_saves_when_it_is_switched_on_in_mid_run(tmp_path):
    """From then on checkpoints are saved, and the run can be gone on with."""
    whole = switched_on_in_mid_run(tmp_path, every=1, keep=None)
    whole.train(2)
    assert [(1, 3), (1, 4), (1, 5), (2, 6)] == places(tmp_path)
    first = Store(tmp_path).checkpoints()[-1]
    loop = make_loop(tmp_path / "b", resume=first)
    loop.train(2)
    assert weights(whole) == weights(loop)


def test_what_was_switched_on_in_mid_run_is_given_back(tmp_path):
    """After the run, signals and the directory are free, as after any run."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        loop = switched_on_in_mid_run(tmp_path, signals=True)
        loop.train(1)
        assert handler is signal.getsignal(signal.SIGTERM)
        make_loop(tmp_path).train(2)  # while that loop is still there
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_second_run_follows_one_in_which_it_was_switched_on(tmp_path):
    """It goes on from what there was when its loop began, not from what it saved itself."""
    loop = switched_on_in_mid_run(tmp_path)
    loop.train(1)
    loop.train(1)
    assert 2 == loop.epoch_num


def test_saves_nothing_while_it_is_off(tmp_path):
    """Switched off in the middle of a run, it leaves what is there."""
    off = Do("on_epoch_end", lambda loop: loop.components.disable("checkpoint"))
    make_loop(tmp_path, off, every=1, keep=None).train(2)
    assert [(0, 1), (0, 2)] == places(tmp_path)


def test_a_quiet_run_gives_no_warning(tmp_path):
    """Saving and going on in the same surroundings warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_loop(tmp_path).train(1)
        make_loop(tmp_path).train(2)
    assert json.loads((newest(tmp_path) / "manifest.json").read_text())["step"] == 6


class Telling:
    """Be a number that sends this process a SIGTERM when it is first looked at."""

    has_told = False

    def __float__(self):
        if not self.has_told:
            self.has_told = True
            signal.raise_signal(signal.SIGTERM)
        return 9.0

    def item(self):
        return 9.0


def test_a_signal_in_the_middle_of_a_safe_point_waits_for_the_next(tmp_path):
    """One that comes when it has been decided not to save ends the run where it is saved."""

    class LogOnce(LoopComponent):
        def on_batch_end(self, loop):
            if loop.global_step < 3:
                loop.log({"value": 1.0 if loop.global_step == 1 else Telling()}, level="epoch")

    loop = make_loop(tmp_path, LogOnce(), best="train/value", signals=True)
    with pytest.raises(SystemExit):
        loop.train(2)
    reasons = [(m["step"], m["reason"]) for m in map(verify, sorted(tmp_path.glob("0*")))]
    assert [(1, "best"), (3, "signal")] == reasons
