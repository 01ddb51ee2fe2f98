"""use(): a name with configuration, also for arguments that are called `name`."""

from __future__ import annotations

import pytest
from loops import make_loop

from ttl_core import ConfigurationError, use


def test_an_argument_called_name_is_configured_in_a_mapping(configurable):
    """`name=` remains the name in the list."""
    spec = use(configurable, {"name": "run-7"}, name="logger", keep=3)
    assert "use('configurable', {'name': 'run-7'}, name='logger', keep=3)" == repr(spec)
    (entry,) = make_loop(spec).manifest()
    assert ("logger", {"name": "run-7", "keep": 3}) == (entry["name"], entry["config"])


def test_a_mapping_may_be_all_of_the_configuration(configurable):
    """It is as if its items were keywords."""
    assert repr(use(configurable, keep=3)) == repr(use(configurable, {"keep": 3}))


@pytest.mark.parametrize("given", ["name", 3, [("keep", 3)], {1: 2}], ids=repr)
def test_another_configuration_is_refused(given):
    """The second argument is a mapping of names."""
    with pytest.raises(ConfigurationError, match=r"configuration of 'x' is .* has to be a mapping"):
        use("x", given)


def test_an_argument_given_twice_is_refused():
    """Neither of both values would be right."""
    with pytest.raises(ConfigurationError, match=r"use\('x'\) is given 'keep' twice"):
        use("x", {"keep": 3}, keep=4)
