"""Keys for names of any characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name
from ttl_mlflow.keys import key_of


@given(st.text(st.characters(codec=None), max_size=300))
def test_mlflow_takes_the_key_of_any_name(name):
    """Also of empty names, of paths, of long names and of names that are no valid text."""
    key = key_of(name)
    _validate_metric_name(key)
    assert 250 >= len(key)
    key.encode()


@given(st.lists(st.text("a-0x4@/. ", max_size=8), unique=True))
def test_no_two_names_have_the_same_key(names):
    """Also where a name looks like the key of another one."""
    assert len(names) == len({key_of(name) for name in names})


@pytest.mark.parametrize("name", ["train/loss", "a b", "valid/set 1/top-1", "ü.é_2"])
def test_a_name_that_mlflow_takes_is_its_own_key(name):
    """It is written as it is."""
    assert name == key_of(name)
