"""Stops and kills at random points, many times."""

import random

import group_checkpoints
import group_stops
import pytest
from elastic_runs import Kills, elastic_run, facts_of
from examples import FOLDER, run_example
from process_groups import in_group
from torchrun import expected, hosts, run, run_on_hosts

POINTS = ("on_batch_begin", "on_forward_pass", "on_backward_pass", "on_optim_step", "on_batch_end")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(50))
def test_stops_at_random_points_end_all_processes_alike(seed):
    """From any process of 2 or 4, in any batch."""
    chance = random.Random(seed)
    size = chance.choice((2, 4))
    where = chance.randrange(size), chance.choice(POINTS), chance.randrange(4)
    first, *others = in_group(size, group_stops.stopped, *where)
    assert first[0]
    for other in others:
        assert first == other


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_restarts_after_kills_at_any_time_come_to_the_same_bits(seed, tmp_path):
    """Five in each run, of any process: 50 in all."""
    size = (2, 4)[seed % 2]
    whole = in_group(size, group_checkpoints.saved_with, tmp_path / "whole", {"n_epochs": 20})
    n_restarts, facts = elastic_run(size, tmp_path / "killed", Kills(5, seed=seed, skew=0.3))
    assert 5 == n_restarts
    assert [facts_of(each) for each in whole] == facts


@pytest.mark.soak
def test_restarts_by_the_store_of_torchrun_would_hang(tmp_path):
    """The test above tells the difference."""
    kills = (Kills(5, seed=seed, skew=0.3) for seed in range(3))
    outcomes = (elastic_run(2, tmp_path / str(i), k, naive=True) for i, k in enumerate(kills))
    assert any(outcome is None for outcome in outcomes)


@pytest.mark.soak
def test_torchrun_restarts_a_program(tmp_path):
    """The command itself, with a program that it begins anew."""
    status, output, _ = run(tmp_path, "kill once", "--max-restarts", "1")
    assert 0 == status
    assert 1 == output.count("failing at")
    assert "resuming from" in output
    assert f"steps=16 weights={expected()}" in output


@pytest.mark.soak
def test_two_hosts_train_together_and_restart_after_a_kill(tmp_path):
    """They are network namespaces, and find one another by c10d."""
    with hosts(2) as found:
        outcomes = run_on_hosts(found, tmp_path, "kill once", "--max-restarts", "2")
    assert [0, 0] == [status for status, _ in outcomes], "\n".join(text for _, text in outcomes)
    output = "".join(text for _, text in outcomes)
    assert 1 == output.count("failing at")
    assert "resuming from" in output
    assert f"steps=16 weights={expected()}" in output


@pytest.mark.soak
def test_the_demo_resumes_after_a_kill():
    """With the accuracy of a run that was not interrupted."""
    assert "test accuracy" in run_example(FOLDER / "digits_distributed.py", timeout=300)
