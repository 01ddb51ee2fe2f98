"""Checks of arguments, shared by the loop and its components."""

import math
import warnings

import numpy as np
import pytest
import torch

from ttl_core import ArgumentError
from ttl_core.arguments import flag, number, one_of, user_stacklevel, whole_number

ONE_OF_MODES = "mode is 'mim', but has to be 'min' or 'max'. Did you mean 'min'?"


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)], ids=repr)
def test_whole_numbers_of_any_library_become_ints(value):
    """Whole numbers of Python, NumPy and torch are accepted and returned as ints."""
    result = whole_number("every", value, at_least=1)
    assert (3, int) == (result, type(result))


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), 2.0, np.float32(2), "2", None, 0, -1], ids=repr
)
def test_what_is_no_whole_number_is_refused(value):
    """Bools, floats, text and numbers below the minimum are refused, with the value."""
    with pytest.raises(ArgumentError) as caught:
        whole_number("every", value, at_least=1)
    assert f"every is {value!r}, but has to be a whole number from 1" == str(caught.value)


@pytest.mark.parametrize("value", [0.5, 1, np.float32(2), math.inf], ids=repr)
def test_numbers_in_range_are_returned_as_they_are(value):
    """A number inside the range is the one that is returned."""
    assert value is number("max_norm", value, above=0)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, True, "1", None, [1]], ids=repr)
def test_numbers_out_of_range_are_refused(value):
    """What is outside the range, NaN or no number is refused, with the value."""
    with pytest.raises(ArgumentError) as caught:
        number("max_norm", value, above=0)
    assert f"max_norm is {value!r}, but has to be a number above 0" == str(caught.value)


@pytest.mark.parametrize("value", [True, False])
def test_a_flag_is_returned_as_it_is(value):
    """It is True or False."""
    assert value is flag("resume", value)


@pytest.mark.parametrize("value", ["no", 0, 1, None, np.True_, torch.tensor(True)], ids=repr)
def test_what_is_no_flag_is_refused(value):
    """Also what counts as one of them in an `if`."""
    with pytest.raises(ArgumentError) as caught:
        flag("resume", value)
    assert f"resume is {value!r}, but has to be True or False" == str(caught.value)


def test_a_choice_that_is_none_is_refused_with_the_nearest():
    """The error lists the choices and suggests the nearest one."""
    with pytest.raises(ArgumentError) as caught:
        one_of("mode", "mim", ("min", "max"))
    assert ONE_OF_MODES == str(caught.value)


def test_a_warning_shows_the_line_of_the_user():
    """The stack level skips the frames of the caller's own package."""
    inner = {"__name__": "acme.inner", "warnings": warnings, "user_stacklevel": user_stacklevel}
    exec("def warn(): warnings.warn('look', UserWarning, stacklevel=user_stacklevel())", inner)
    outer = {"__name__": "acme.outer", "warn": inner["warn"]}
    exec("def call(): warn()", outer)
    with pytest.warns(UserWarning, match="look") as caught:
        outer["call"]()
    assert [__file__] == [warning.filename for warning in caught]
