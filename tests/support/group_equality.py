"""What training in several processes comes to, against training in one."""

import functools

import group_cases
import pytest
import torch


@functools.cache
def facts_alone(name):
    """Return the facts of a case in one process, computed once."""
    return group_cases.train(name)


def check_same(alone, several, tolerance):
    """Check the facts of each process against those of one process."""
    for facts in several:
        assert alone["steps"] == facts["steps"]
        assert (alone["epochs"], alone["stopped"]) == (facts["epochs"], facts["stopped"])
        assert len(alone["gradients"]) == len(facts["gradients"])
        for expected, actual in zip(alone["gradients"], facts["gradients"], strict=True):
            largest = max(1.0, *map(abs, expected))  # sums round as their largest terms do
            assert pytest.approx(expected, abs=tolerance / 2 * largest) == actual
        assert pytest.approx(alone["metrics"], rel=tolerance, abs=tolerance) == facts["metrics"]
        for name, value in alone["weights"].items():
            assert pytest.approx(flat(value), rel=tolerance, abs=tolerance) == flat(
                facts["weights"][name]
            )
    for facts in several[1:]:  # to the bit
        assert several[0] == facts


def flat(value):
    """Return the numbers in nested lists and dicts."""
    items = value.values() if isinstance(value, dict) else value
    return [each for one in items for each in flat(one)] if hasattr(items, "__iter__") else [value]


def forget_the_stop(directory):
    """Remove checkpoints of a stopped run: a run does not resume from there."""
    for path in sorted(directory.glob("0*"))[::-1]:
        if not torch.load(path / "state.pt", weights_only=True)["position"]["is_stopped"]:
            return
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
