"""Stops and kills at random points, many times."""

import random

import group_cases
import pytest
from examples import FOLDER, run_example
from process_groups import in_group

POINTS = ("on_batch_begin", "on_forward_pass", "on_backward_pass", "on_optim_step", "on_batch_end")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(50))
def test_stops_at_random_points_end_all_processes_alike(seed):
    """From any process of 2 or 4, in any batch."""
    chance = random.Random(seed)
    size = chance.choice((2, 4))
    where = chance.randrange(size), chance.choice(POINTS), chance.randrange(4)
    first, *others = in_group(size, group_cases.stopped, *where)
    assert first[0]
    for other in others:
        assert first == other


@pytest.mark.soak
def test_the_demo_resumes_after_a_kill():
    """With the accuracy of a run that was not interrupted."""
    assert "test accuracy" in run_example(FOLDER / "digits_distributed.py", timeout=300)
