"""Monitor: which value of a metric is an improvement, and which is the best."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttl_core import ArgumentError, Monitor, RunError, StateError, missing_metric_error

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(("mode", "pick"), [("min", min), ("max", max)])
@given(values=st.lists(finite, min_size=1))
def test_the_best_of_finite_values_is_their_extreme(mode, pick, values):
    """After any values, the best one is their minimum, or their maximum."""
    monitor = Monitor("valid/loss", mode)
    for value in values:
        monitor.update(value)
    assert pick(values) == monitor.best


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_better(mode, value):
    """NaN and the infinities do not replace the best value."""
    assert not Monitor("valid/loss", mode).update(value)


@pytest.mark.parametrize(("mode", "value"), [("min", 0.9), ("max", 1.1)])
def test_an_improvement_has_to_exceed_min_delta(mode, value):
    """A value that is better by min_delta or less is no improvement."""
    monitor = Monitor("valid/loss", mode, min_delta=0.2)
    monitor.update(1.0)
    assert not monitor.update(value)


def test_a_metric_of_which_more_is_better_needs_a_mode():
    """By its name: less is taken to be better of all others."""
    with pytest.raises(
        ArgumentError, match=r"best='valid/accuracy' .* Give mode='max', or mode='min'"
    ):
        Monitor("valid/accuracy", argument="best")
    assert ["max", "min"] == [Monitor("valid/accuracy", mode).mode for mode in ("max", "min")]
    assert "min" == Monitor("valid/loss").mode


def test_a_value_of_several_numbers_is_an_error():
    """A metric with several values cannot be compared, and the error names both sides."""
    with pytest.raises(RunError, match="'early-stopping' monitors 'valid/mse', which is not a"):
        Monitor("valid/mse").to_number(torch.ones(2), "early-stopping")


@pytest.mark.parametrize("arguments", [(1,), ("a", "least"), ("a", "min", -1)])
def test_bad_arguments_are_refused(arguments):
    """A name that is no text, another mode and a negative min_delta are refused."""
    with pytest.raises(ArgumentError):
        Monitor(*arguments[:2], **({"min_delta": arguments[2]} if len(arguments) > 2 else {}))


def test_a_missing_metric_is_named_with_what_was_logged():
    """The error says which metric is missing, the nearest one, and all that were logged."""
    assert (
        "'checkpoint' needs the metric 'valid/los', which was not logged at epoch level in a whole "
        "epoch. Did you mean 'valid/loss'? Logged were: train/loss, valid/loss"
    ) == str(missing_metric_error("checkpoint", "valid/los", ["train/loss", "valid/loss"]))
    without_phase = missing_metric_error("checkpoint", "loss", ["train/loss", "valid/loss"])
    assert "Did you mean 'valid/loss'?" in str(without_phase)


def test_the_error_does_not_suggest_a_metric_of_training_in_place_of_validation():
    """Where validation had no batch, that is what it says."""
    error = missing_metric_error("early-stopping", "valid/loss", ["train/loss"])
    assert "a whole epoch. No validation has logged any: valid_data may have no batch." in str(
        error
    )
    assert "Did you mean" not in str(error)


def test_a_missing_metric_that_is_near_to_none_is_to_be_logged():
    """It may have been logged at batch level, which is the default."""
    error = missing_metric_error("checkpoint", "valid/accuracy", ["valid/loss"])
    assert "Log it for whole epochs: loop.log({'accuracy': value}, level='epoch')." in str(error)


# -- resuming -------------------------------------------------------------------------------


def saved_state(metric="valid/loss", mode="min", best=2.0):
    """Return the state of a monitor after one value."""
    monitor = Monitor(metric, mode)
    monitor.update(best)
    return monitor.state_dict()


def test_a_monitor_resumes_with_the_best_value_of_its_state():
    """Also from a state of an earlier version, which did not tell the metric."""
    for state in (saved_state(), {"best": 2.0}):
        assert 2.0 == Monitor("valid/loss").resumed(state, "checkpoint").best


@pytest.mark.parametrize(("metric", "mode"), [("valid/cost", "min"), ("valid/loss", "max")])
def test_a_state_of_another_metric_or_mode_is_refused(metric, mode):
    """The error names the component, both settings as they are given, and the choices."""
    with pytest.raises(
        StateError,
        match=f"checkpoint has best='{metric}', mode='{mode}', .* best='valid/loss', mode='min', "
        ".* settings='saved' .* settings='new' .* without the state",
    ):
        Monitor(metric, mode, argument="best").resumed(saved_state(), "checkpoint")


def test_the_metric_of_a_state_can_be_chosen():
    """The saved one continues with its best value; for the new one there is nothing to resume."""
    monitor = Monitor("valid/cost", "max", min_delta=0.5)
    saved = monitor.resumed(saved_state(), "early-stopping", "saved")
    assert ("valid/loss", "min", 2.0, 0.5) == (
        saved.metric,
        saved.mode,
        saved.best,
        saved.min_delta,
    )
    assert monitor.resumed(saved_state(), "early-stopping", "new") is None


def test_a_state_without_a_best_value_leaves_none():
    """Of a monitor of any mode: the infinity before the first value may be that of the other."""
    monitor = Monitor("valid/loss", "max")
    monitor.update(3.0)
    assert -math.inf == monitor.resumed({"monitor": None, "best": math.inf}, "checkpoint").best
