"""Monitor: which value of a metric is an improvement, and which is the best."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttl_core import ArgumentError, Monitor, RunError, missing_metric_error

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
