"""What `early-stopping` does."""

import math

import pytest
import torch

from ttl_core import LoopComponent, RunError, TrainTestLoop, use

NAN = math.nan


class Log(LoopComponent):
    """Log one value after the other in validation epochs, or in those of another phase."""

    def __init__(self, values, phase="valid"):
        self.values = iter(values)
        self.phase = phase

    def on_epoch_end(self, loop):
        if loop.epoch_desc == self.phase:
            loop.log({"loss": next(self.values)}, level="epoch")


class Do(LoopComponent):
    """Do something at one point."""

    def __init__(self, point, action):
        setattr(self, point, lambda loop: action(loop))


def make_loop(values, *others, phase="valid", n_train=1, has_valid_data=True, **config):
    """Return a loop that logs values and may stop early."""
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
    """It stops after so many values without an improvement, or at the threshold."""
    loop = make_loop([*values, *[None] * 9], **config)
    loop.train(n_epochs=9)
    assert n_epochs == loop.epoch_num


def test_leaves_a_run_alone_whose_metric_improves():
    """A run goes through all its epochs and has no reason for a stop."""
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
            "valid/loss was not below its best, 5, by more than 2 in 1 values; the newest is 4",
        ),
        ({"threshold": 4.5}, "valid/loss reached 4, the threshold is 4.5"),
    ],
)
def test_says_why_it_stopped(config, reason, caplog):
    """The reason is an attribute and a record of logging."""
    loop = make_loop([5, 4, 4, 4.9, 4], **config)
    with caplog.at_level("INFO"):
        loop.train(n_epochs=5)
    assert reason == loop.components["early-stopping"].reason
    assert [f"early-stopping: {reason}"] == caplog.messages


@pytest.mark.parametrize("place", [0, 1, 2])
def test_place_in_the_list_does_not_matter(place):
    """Before or after who logs and who saves, it stops after the same epoch, which was saved."""
    saved = []
    save = Do("on_safe_point", lambda loop: saved.append((loop.epoch_num, loop.epoch_desc)))
    loop = make_loop([5, 5, 5], save, patience=1)
    loop.components.insert(place, loop.components.pop())
    loop.train(n_epochs=9)
    assert [(0, "train"), (1, "valid"), (1, "train"), (2, "valid")] == saved


def test_stops_after_the_validation_of_the_epoch():
    """A metric of training is decided on when the epoch has been validated and counted."""
    seen = []
    look = Do("on_epoch_end", lambda loop: seen.append(loop.epoch_desc))
    loop = make_loop([5, 5], look, phase="train", monitor="train/loss", patience=1)
    loop.train(n_epochs=9)
    assert (["train", "valid"] * 2, 2) == (seen, loop.epoch_num)


def test_stops_after_the_training_epoch_without_validation_data():
    """Where there are no validation data, the epoch of training is the whole epoch."""
    seen = []
    look = Do("on_epoch_begin", lambda loop: seen.append(loop.epoch_desc))
    loop = make_loop(
        [5, 5], look, phase="train", monitor="train/loss", patience=1, has_valid_data=False
    )
    loop.train(n_epochs=9)
    assert ["train", "train"] == seen


class Nested(LoopComponent):
    """Validate after each batch of training."""

    def on_batch_end(self, loop):
        if loop.is_training:
            loop.validate()


def test_counts_each_validation_in_mid_epoch_once():
    """Values of validations in mid-epoch count like others, and stop in mid-epoch."""
    loop = make_loop([9, 8, 8, 8, 8, 8], Nested(), n_train=9, patience=3)
    loop.train(n_epochs=9)
    assert (0, 5) == (loop.epoch_num, loop.global_step)


def test_counts_a_validation_after_the_last_batch_too():
    """A value that no safe point follows before the next one comes is not lost."""
    loop = make_loop([9, 9, 9, 9], Nested(), n_train=1, patience=3)
    loop.train(n_epochs=9)
    assert 2 == loop.epoch_num


def test_does_not_count_values_between_runs():
    """What is logged outside training does not count in the next train()."""
    loop = make_loop([1, 1, 1, 9, 8, 7], patience=2)
    for _ in range(3):
        loop.validate()
    loop.train(n_epochs=3)
    assert 3 == loop.epoch_num


def test_each_train_starts_afresh():
    """A second train() goes on after the first was stopped."""
    loop = make_loop([1, 1, 9, 9], patience=1)
    loop.train(n_epochs=9)
    loop.train(n_epochs=9)
    assert (4, 9.0) == (loop.epoch_num, loop.components["early-stopping"].best)


def test_counts_each_epoch_once_whoever_else_reads_the_state():
    """A saver that asks for the state in the same safe point changes nothing."""
    read = Do("on_safe_point", lambda loop: loop.components["early-stopping"].state_dict())
    loop = make_loop([5, 5, 5, 5], read, patience=3)
    loop.train(n_epochs=9)
    assert 4 == loop.epoch_num


def test_state_has_the_value_of_its_safe_point(tmp_path):
    """A saver before it in the list saves counts that include the newest value, as plain data."""

    def save(loop):
        torch.save(loop.components["early-stopping"].state_dict(), tmp_path / "state.pt")

    make_loop([torch.tensor(5.0), 6], Do("on_safe_point", save)).train(n_epochs=2)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert {"best": 5.0, "n_bad": 1, "reason": None} == state


def resumed(state, values, **config):
    """Return a loop that has trained from a state."""
    load = Do(
        "on_train_begin", lambda loop: loop.components["early-stopping"].load_state_dict(state)
    )
    loop = make_loop(values, **config)
    loop.components.append(load)
    loop.train(n_epochs=9)
    return loop


def test_counts_on_from_a_state():
    """A resumed run stops when the uninterrupted run would have."""
    state = {"best": 5.0, "n_bad": 1, "reason": None}
    assert 2 == resumed(state, [6, 6, 6, 6], patience=3).epoch_num


def test_a_state_of_a_stopped_run_trains_no_more():
    """A run resumed from the safe point at which it was stopped ends before its next epoch."""
    state = {"best": 5.0, "n_bad": 3, "reason": "enough"}
    assert 0 == resumed(state, []).global_step


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("valid/los", r"'valid/los', .* Did you mean 'valid/loss'\? Logged were: valid/loss"),
        ("auc", r"'auc', which nobody has logged .* in a whole epoch\. Logged were: valid/loss"),
    ],
)
def test_a_metric_that_never_appears_is_an_error(monitor, message):
    """After the first epoch the error names the metrics that did appear."""
    loop = make_loop([5, 4], monitor=monitor)
    with pytest.raises(RunError, match=message):
        loop.train(n_epochs=2)
    assert 1 == loop.epoch_num


def test_a_metric_that_is_logged_no_more_is_an_error():
    """A value that is left from an earlier train() does not hide that there is no new one."""
    loop = make_loop([5, 4])
    loop.train(n_epochs=1)
    loop.components.disable("log")
    with pytest.raises(RunError, match="nobody has logged"):
        loop.train(n_epochs=1)


def test_a_metric_may_be_rare():
    """Once it has appeared, epochs without it are no error and do not count."""

    class Rarely(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.is_validating and loop.epoch_num % 3 == 0:
                loop.log({"f1": 0.5}, level="epoch")

    loop = make_loop([0] * 9, Rarely(), monitor="valid/f1", mode="max", patience=2)
    loop.train(n_epochs=9)
    assert 7 == loop.epoch_num


def test_values_of_batches_do_not_count():
    """A value logged at batch level is not the metric."""
    log = Do("on_batch_end", lambda loop: loop.log({"f1": 1}))
    with pytest.raises(RunError, match="nobody has logged"):
        make_loop([0], log, monitor="valid/f1").train(n_epochs=1)


def test_a_metric_of_many_numbers_is_an_error():
    """A confusion matrix cannot improve."""
    with pytest.raises(RunError, match=r"'valid/loss', which is not a single number: tensor"):
        make_loop([torch.eye(2)]).train(n_epochs=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"monitor": None}, "monitor is None"),
        ({"mode": "least"}, "neither 'min' nor 'max'"),
        ({"patience": 0}, "patience is 0"),
        ({"patience": 1.5}, "patience is 1.5"),
        ({"min_delta": -1}, "min_delta is -1"),
    ],
)
def test_refuses_wrong_configuration(config, message):
    """What cannot work is refused when the component is made, naming the argument."""
    with pytest.raises((TypeError, ValueError), match=message):
        make_loop([], **config)
