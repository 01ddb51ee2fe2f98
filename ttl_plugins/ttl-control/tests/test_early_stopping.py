"""The behaviour of `early-stopping`."""

import math

import numpy
import pytest
import torch
from ttl_control import EarlyStopping

from ttl_core import ArgumentError, LoopComponent, RunError, StateError, TrainTestLoop, use

NAN = math.nan


class Log(LoopComponent):
    """A component that logs one value after the other, by default in validation epochs."""

    def __init__(self, values, phase="valid"):
        self.values = iter(values)
        self.phase = phase

    def on_epoch_end(self, loop):
        if loop.epoch_desc == self.phase:
            loop.log({"loss": next(self.values)}, level="epoch")


class Do(LoopComponent):
    """A component that does something at one callback point."""

    def __init__(self, point, action):
        setattr(self, point, lambda loop: action(loop))


def make_loop(values, *others, phase="valid", n_train=1, has_valid_data=True, **config):
    """Return a loop that logs values and stops early."""
    components = [Log(values, phase), *others, use("early-stopping", **config)]
    return TrainTestLoop(
        torch.nn.Identity(), components, [0] * n_train, [0] if has_valid_data else None
    )


@pytest.mark.parametrize(
    ("config", "values", "n_epochs"),
    [
        ({"patience": 2}, [5, 4, 4, 4, 3], 4),
        ({"patience": 2}, [5, 6, 4, 6, 3, 3, 3], 7),
        ({"patience": 1}, [5, 5], 2),
        ({"patience": 2, "mode": "max"}, [5, 6, 6, 5, 7], 4),
        ({"patience": 2, "min_delta": 1}, [5, 4.5, 4, 3], 3),
        ({"patience": 2, "min_delta": 1, "mode": "max"}, [5, 5.5, 6, 7], 3),
        ({"patience": 2}, [NAN, NAN, 1], 2),
        ({"patience": 2}, [5, NAN, 4, NAN, NAN], 5),
        ({"patience": 2}, [math.inf, 5, 4, 4, 4], 5),
        ({"threshold": 2}, [5, 3, 2, 1], 3),
        ({"threshold": 2, "mode": "max"}, [0, 1, 3, 4], 3),
        ({"threshold": 4, "min_delta": 3}, [5, 4, 1], 2),
    ],
)
def test_stops_when_the_metric_no_longer_improves(config, values, n_epochs):
    """It stops after `patience` values without an improvement, or at the threshold."""
    loop = make_loop([*values, *[None] * 9], **config)
    loop.train(n_epochs=9)
    assert n_epochs == loop.epoch_num


def test_a_run_whose_metric_improves_is_not_stopped():
    """The run has all its epochs and there is no reason for a stop."""
    loop = make_loop([3, 2, 1], patience=1)
    loop.train(n_epochs=3)
    assert (3, None) == (loop.epoch_num, loop.components["early-stopping"].reason)


def test_takes_tensors():
    """A logged tensor counts as its number."""
    loop = make_loop([torch.tensor([5.0]), torch.tensor(5.0)], patience=1)
    loop.train(n_epochs=9)
    assert 5.0 == loop.components["early-stopping"].best


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"patience": 2},
            "valid/loss was not below its best, 4, in 2 values; the newest is 4.9",
        ),
        (
            {"patience": 1, "min_delta": 2},
            "valid/loss was not below its best, 5, by more than 2 in 1 value; the newest is 4",
        ),
        ({"threshold": 4.5}, "valid/loss reached 4, the threshold is 4.5"),
    ],
)
def test_the_reason_is_recorded(config, reason, caplog):
    """Why it stopped is an attribute and a record of logging."""
    loop = make_loop([5, 4, 4, 4.9, 4], **config)
    with caplog.at_level("INFO"):
        loop.train(n_epochs=5)
    assert reason == loop.components["early-stopping"].reason
    assert [f"early-stopping: {reason}"] == caplog.messages


@pytest.mark.parametrize("place", [0, 1, 2])
def test_place_in_the_list_does_not_matter(place):
    """Before or after components that log and save, it stops after the same, saved epoch."""
    saved = []
    save = Do("on_safe_point", lambda loop: saved.append((loop.epoch_num, loop.epoch_desc)))
    loop = make_loop([5, 5, 5], save, patience=1)
    loop.components.insert(place, loop.components.pop())
    loop.train(n_epochs=9)
    assert [(0, "train"), (1, "valid"), (1, "train"), (2, "valid")] == saved


def test_stops_after_the_validation_of_the_epoch():
    """A metric of training stops the run when the epoch has been validated and counted."""
    seen = []
    note = Do("on_epoch_end", lambda loop: seen.append(loop.epoch_desc))
    loop = make_loop([5, 5], note, phase="train", monitor="train/loss", patience=1)
    loop.train(n_epochs=9)
    assert (["train", "valid"] * 2, 2) == (seen, loop.epoch_num)


def test_stops_after_the_training_epoch_without_validation_data():
    """Without validation data the training epoch is the complete epoch."""
    seen = []
    note = Do("on_epoch_begin", lambda loop: seen.append(loop.epoch_desc))
    loop = make_loop(
        [5, 5], note, phase="train", monitor="train/loss", patience=1, has_valid_data=False
    )
    loop.train(n_epochs=9)
    assert ["train", "train"] == seen


class Nested(LoopComponent):
    """A component that validates after each training batch."""

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.validate()


def test_counts_each_validation_in_mid_epoch_once():
    """Values of validations in mid-epoch count like others, and can stop in mid-epoch."""
    loop = make_loop([9, 8, 8, 8, 8, 8], Nested(), n_train=9, patience=3)
    loop.train(n_epochs=9)
    assert (0, 5) == (loop.epoch_num, loop.global_step)


def test_counts_a_validation_after_the_last_batch_too():
    """A value is not lost where no safe point comes before the next value."""
    loop = make_loop([9, 9, 9, 9], Nested(), n_train=1, patience=3)
    loop.train(n_epochs=9)
    assert 2 == loop.epoch_num


def test_does_not_count_values_between_runs():
    """Values logged outside of training do not count in the next train()."""
    loop = make_loop([1, 1, 1, 9, 8, 7], patience=2)
    for _ in range(3):
        loop.validate()
    loop.train(n_epochs=3)
    assert 3 == loop.epoch_num


def test_each_train_counts_from_the_start():
    """A second train() trains although the first was stopped."""
    loop = make_loop([1, 1, 9, 9], patience=1)
    loop.train(n_epochs=9)
    loop.train(n_epochs=9)
    assert (4, 9.0) == (loop.epoch_num, loop.components["early-stopping"].best)


def test_reading_the_state_does_not_count_an_epoch_twice():
    """A component that reads the state at the same safe point changes nothing."""
    read = Do("on_safe_point", lambda loop: loop.components["early-stopping"].state_dict())
    loop = make_loop([5, 5, 5, 5], read, patience=3)
    loop.train(n_epochs=9)
    assert 4 == loop.epoch_num


def test_state_includes_the_value_of_its_safe_point(tmp_path):
    """Saved earlier at the same safe point, the state includes the newest value, as plain data."""

    def save(loop):
        torch.save(loop.components["early-stopping"].state_dict(), tmp_path / "state.pt")

    make_loop([torch.tensor(5.0), 6], Do("on_safe_point", save)).train(n_epochs=2)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    counts = {"newest_epoch": 1, "longest_gap": 0}
    setting = {"monitor": "valid/loss", "mode": "min"}
    assert {**setting, "best": 5.0, "n_bad": 1, "reason": None, **counts} == state


def resumed(state, values, **config):
    """Return a loop that has trained from a state."""
    load = Do(
        "on_train_begin", lambda loop: loop.components["early-stopping"].load_state_dict(state)
    )
    loop = make_loop(values, **config)
    loop.components.append(load)
    loop.train(n_epochs=9)
    return loop


def test_resumes_counting():
    """A resumed run stops when the uninterrupted run would have."""
    state = {"best": 5.0, "n_bad": 1, "reason": None}
    assert 2 == resumed(state, [6, 6, 6, 6], patience=3).epoch_num


OTHER = {"monitor": "valid/cost", "mode": "max", "best": 9.0, "n_bad": 1, "reason": None}


@pytest.mark.parametrize("change", [{"monitor": "valid/loss"}, {"mode": "min"}])
def test_a_state_of_another_metric_or_mode_is_refused(change):
    """Its best value is no measure for the new one: the error names both, and the choices."""
    config = {"monitor": "valid/cost", "mode": "max", **change}
    with pytest.raises(StateError, match=r"monitor='valid/cost', mode='max', .*settings='new'"):
        resumed(OTHER, [6], **config)


def test_settings_chooses_the_new_metric_of_a_resumed_run():
    """It is counted from the start."""
    loop = resumed(OTHER, [6, 6, 6, 6], patience=2, settings="new")
    assert (3, 6.0) == (loop.epoch_num, loop.components["early-stopping"].best)


def test_settings_chooses_the_saved_metric_of_a_resumed_run():
    """Its count continues."""
    component = EarlyStopping(settings="saved")
    component.load_state_dict(OTHER)
    assert ("valid/cost", "max", 9.0) == (component.monitor, component.mode, component.best)


def test_a_resumed_run_that_was_stopped_does_not_train():
    """A run resumed from the safe point at which it was stopped ends before its next epoch."""
    state = {"best": 5.0, "n_bad": 3, "reason": "enough"}
    assert 0 == resumed(state, []).global_step


@pytest.mark.parametrize("place", [0, 9], ids=["before", "after"])
def test_a_resumed_run_that_was_stopped_begins_no_epoch(place):
    """Components before and after it do not begin the epoch that is not run."""
    begun = []
    state = {"best": 5.0, "n_bad": 3, "reason": "enough"}
    stopping = use("early-stopping")
    loop = TrainTestLoop(torch.nn.Identity(), [stopping], [0], [0])
    begin = Do("on_epoch_begin", lambda loop: begun.append(loop.epoch_desc))
    loop.components.insert(place, begin)
    loop.components.append(
        Do("on_train_begin", lambda loop: loop.components["early-stopping"].load_state_dict(state))
    )
    loop.train(n_epochs=1)
    assert [] == begun


def test_a_run_resumed_in_mid_epoch_stops_where_the_uninterrupted_one_did():
    """A state that was saved at the safe point at which it stopped is followed by no step."""
    states = []

    def loop_of(values):
        keep = Do("on_safe_point", lambda loop: states.append(loop.state_dict()))
        return make_loop(values, use("validate-every", steps=2), keep, n_train=9, patience=1)

    loop = loop_of([5, 6])
    loop.train(n_epochs=1)
    assert 4 == loop.global_step
    resumed = loop_of([])
    resumed.load_state_dict(states[-1])
    resumed.train(n_epochs=1)
    assert (4, True) == (resumed.global_step, resumed.is_stopped)


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("valid/los", r"'valid/los', .* Did you mean 'valid/loss'\? Logged were: valid/loss"),
        ("cost", r"'cost', which was not logged .* in a whole epoch\. .*Logged were: valid/loss"),
    ],
)
def test_a_metric_that_never_appears_is_an_error(monitor, message):
    """After the first epoch the error names the metrics that did appear."""
    loop = make_loop([5, 4], monitor=monitor)
    with pytest.raises(RunError, match=message):
        loop.train(n_epochs=2)
    assert 1 == loop.epoch_num


@pytest.mark.parametrize(
    ("monitor", "valid_data", "message"),
    [
        ("valid/loss", None, "monitors 'valid/loss', but there are no valid_data"),
        ("valid/loss", {"a": [0], "b": [0]}, "Monitor 'valid/a/loss' or 'valid/b/loss'"),
        ("valid/c/loss", {"a": [0], "b": [0]}, "named sets, and that is of none of them"),
    ],
)
def test_a_metric_that_the_validation_data_cannot_have_is_refused(monitor, valid_data, message):
    """Before the first batch."""
    loop = make_loop([5], monitor=monitor)
    loop.valid_data = valid_data
    with pytest.raises(ArgumentError, match=message):
        loop.train(1)
    assert 0 == loop.global_step


def test_data_may_come_from_a_component_behind_it():
    """What counts is what they are when the run has begun."""
    loop = make_loop([5], has_valid_data=False)
    loop.components.append(Do("on_train_begin", lambda loop: setattr(loop, "valid_data", [0])))
    loop.train(1)
    assert 5 == loop.components["early-stopping"].best


def test_a_metric_that_is_no_longer_logged_is_an_error():
    """A value of an earlier train() does not count as one of this train()."""
    loop = make_loop([5, 4])
    loop.train(n_epochs=1)
    loop.components.disable("log")
    with pytest.raises(RunError, match="was not logged at epoch level"):
        loop.train(n_epochs=1)


def test_a_value_that_equals_the_one_of_an_earlier_train_is_a_new_one():
    """A value logged in this train() counts, also where it is the same object as before."""
    value = 5
    loop = make_loop([value, value])
    loop.train(n_epochs=1)
    loop.train(n_epochs=1)
    assert (2, 5.0) == (loop.epoch_num, loop.components["early-stopping"].best)


def enabled_after_the_value(monitor):
    """Return a loop in which it is enabled when the epoch's value has been logged."""

    class Enable(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating:
                loop.components.enable("early-stopping")

    loop = make_loop([5], Enable(), monitor=monitor)
    loop.components.disable("early-stopping")
    return loop


def test_enabled_in_mid_run_it_accepts_a_value_from_before():
    """A metric that was logged before it was enabled is not missing."""
    loop = enabled_after_the_value("valid/loss")
    loop.train(n_epochs=1)
    assert 1 == loop.epoch_num


def test_enabled_in_mid_run_it_misses_a_metric_that_was_never_logged():
    """A metric that was not logged before it was enabled, nor since, is an error."""
    with pytest.raises(RunError, match="'valid/mse', which was not logged"):
        enabled_after_the_value("valid/mse").train(n_epochs=1)


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_metric_of_one_of_several_validation_sets_is_a_name_like_others(name):
    """Values that are logged under the name of a validation set count by their full name."""
    values = [1.0, 5.0, 1.0, 4.0, 1.0, 3.0, 1.0, 2.0, 1.0, 1.0]  # of the two sets in turn
    loop = make_loop(values, monitor=f"valid/{name}/loss", patience=2)
    loop.valid_data = {"first": [0], "second": [0]}
    loop.train(n_epochs=5)
    assert {"first": 3, "second": 5}[name] == loop.epoch_num


def test_a_metric_may_be_rare():
    """After the metric was logged once, epochs without it are no error and do not count."""

    class Rarely(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating and loop.epoch_num % 3 == 0:
                loop.log({"f1": 0.5}, level="epoch")

    loop = make_loop([0] * 9, Rarely(), monitor="valid/f1", mode="max", patience=2)
    loop.train(n_epochs=9)
    assert 7 == loop.epoch_num


def logged_in(epochs, patience):
    """Return a loop in which the monitored metric is logged in some epochs, always better."""

    class Some(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating and loop.epoch_num in epochs:
                loop.log({"f1": loop.epoch_num}, level="epoch")

    return make_loop([0] * 20, Some(), monitor="valid/f1", mode="max", patience=patience)


@pytest.mark.parametrize(
    ("epochs", "n_missing"),
    [({0}, [3]), ({0, 1, 2}, [3]), ({0, 5}, [3, 5])],
    ids=["once", "often", "rare"],
)
def test_a7_says_that_the_metric_stopped_coming(epochs, n_missing):
    """A7: it warns when no value comes for longer than patience, again after longer gaps only."""
    loop = logged_in(epochs, patience=2)
    expected = r"'valid/f1', which was logged before, but not in the last \d epochs"
    with pytest.warns(UserWarning, match=expected) as caught:
        loop.train(n_epochs=16)
    assert all(f"last {n} epochs" in str(w.message) for n, w in zip(n_missing, caught, strict=True))
    assert [__file__] * len(n_missing) == [warning.filename for warning in caught]
    assert 16 == loop.epoch_num


def test_a7_resumed_it_counts_the_epochs_without_a_value_on():
    """A7: a resumed run warns in the same epoch as the uninterrupted one."""
    state = None

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            nonlocal state
            if (loop.epoch_num, loop.epoch_desc) == (3, "valid"):
                state = loop.state_dict()

    loop = logged_in({0}, patience=2)
    loop.components.append(Save())
    with pytest.warns(UserWarning, match="in the last 3 epochs"):
        loop.train(n_epochs=4)
    resumed = logged_in({0}, patience=2)
    resumed.load_state_dict(state)
    with pytest.warns(UserWarning, match="in the last 3 epochs"):
        resumed.train(n_epochs=4)


def test_a7_states_of_earlier_versions_are_loaded():
    """A7: a state that holds no count of epochs without a value is taken as one with none."""
    loop = logged_in({0}, patience=2)
    component = loop.components["early-stopping"]
    component.load_state_dict({"best": 1.0, "n_bad": 1, "reason": None})
    new = {"newest_epoch": None, "longest_gap": 0}
    setting = {"monitor": "valid/f1", "mode": "max"}
    assert {**setting, "best": 1.0, "n_bad": 1, "reason": None, **new} == component.state_dict()


def test_values_of_batches_do_not_count():
    """A value logged at batch level is not the metric."""
    log = Do("on_batch_end", lambda loop: loop.log({"mse": 1}))
    with pytest.raises(RunError, match="was not logged at epoch level"):
        make_loop([0], log, monitor="valid/mse").train(n_epochs=1)


def test_a_metric_of_many_numbers_is_an_error():
    """A value of several numbers, as a confusion matrix, cannot improve."""
    with pytest.raises(RunError, match=r"'valid/loss', which is not a single number: tensor"):
        make_loop([torch.eye(2)]).train(n_epochs=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"monitor": None}, "monitor is None"),
        ({"mode": "least"}, "mode is 'least', but has to be 'min' or 'max'"),
        ({"patience": 0}, "patience is 0"),
        ({"patience": 1.5}, "patience is 1.5"),
        ({"patience": True}, "patience is True"),
        ({"min_delta": -1}, "min_delta is -1"),
        ({"threshold": "0.1"}, "threshold is '0.1'"),
    ],
)
def test_refuses_unusable_arguments(config, message):
    """Arguments that cannot work are refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        make_loop([], **config)


def test_takes_a_patience_of_numpy():
    """A NumPy integer is a whole number."""
    loop = make_loop([5] * 9, patience=numpy.int64(2))
    loop.train(n_epochs=9)
    assert 3 == loop.epoch_num
