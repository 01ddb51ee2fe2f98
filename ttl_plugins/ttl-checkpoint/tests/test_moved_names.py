"""Names that have moved to the core."""

import pytest
import ttl_checkpoint

import ttl_core


@pytest.mark.parametrize("name", ["SeededSampler", "SeededSamples", "sample_generator"])
def test_a_moved_name_still_works_with_a_warning(name):
    """The old import returns the object in the core, and the warning shows the new import."""
    with pytest.warns(FutureWarning, match=f"write `from ttl_core import {name}`"):
        assert getattr(ttl_core, name) is getattr(ttl_checkpoint, name)


def test_an_unknown_name_is_an_attribute_error():
    """Other names are not looked up in the core."""
    with pytest.raises(AttributeError, match="no attribute 'TrainTestLoop'"):
        _ = ttl_checkpoint.TrainTestLoop
