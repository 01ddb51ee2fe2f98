"""What training in several processes comes to, against training in one."""

import functools

import group_cases
import pytest


@functools.cache
def facts_alone(name):
    """Return the facts of a case in one process, computed once."""
    return group_cases.train(name)


def check_same(alone, several, tolerance):
    """Check the facts of each process against those of one process."""
    for facts in several:
        assert alone["steps"] == facts["steps"]
        assert (alone["epochs"], alone["stopped"]) == (facts["epochs"], facts["stopped"])
        assert pytest.approx(alone["metrics"], rel=tolerance, abs=tolerance) == facts["metrics"]
        for name, value in alone["weights"].items():
            assert pytest.approx(flat(value), rel=tolerance, abs=tolerance) == flat(
                facts["weights"][name]
            )
    for facts in several[1:]:  # to the bit
        assert several[0] == facts


def flat(value):
    """Return the numbers in nested lists."""
    return [each for one in value for each in flat(one)] if isinstance(value, list) else [value]
