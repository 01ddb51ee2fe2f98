"""Failures of one process, in groups that torchrun has started."""

import group_checkpoints
import group_stops
import pytest
from elastic_runs import Kills, elastic_run, facts_of
from process_groups import ends_in_group, in_group
from torchrun import expected, run, run_forked

HOOKS = (
    "on_epoch_begin",
    "on_grads_reset",
    "on_batch_begin",
    "on_forward_pass",
    "on_loss_compute",
    "on_backward_pass",
    "on_optim_step",
    "on_batch_end",
    "on_safe_point",
    "on_epoch_end",
)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The directory of a run that has failed by an exception, and what came of it."""
    directory = tmp_path_factory.mktemp("failed")
    return directory, *run(directory, "raise")


def seconds_to_end(output, ended):
    """Return how long the group took to end after its failure."""
    return ended - float(output.partition("failing at ")[2].split()[0])


def test_an_exception_in_one_process_ends_all(failed):
    """Soon, with a status that is not 0, and with its message before those of the others."""
    _, status, output, ended = failed
    assert status != 0
    assert seconds_to_end(output, ended) < 10
    assert "ttl: in rank 1 of 2" in output
    first = output.index("ValueError: it was to be expected")
    assert first < output.find("GroupError", 0) or "GroupError" not in output


def test_the_process_that_failed_writes_what_it_had(failed):
    """The directory names its rank; the others, which only failed with it, write none."""
    directory, *_ = failed
    crashes = [path.name for path in directory.glob("crash-*")]
    assert [True] == [name.endswith("-rank-1") for name in crashes]


def test_the_same_program_resumes_after_a_failure(failed, tmp_path):
    """From the last checkpoint, to where it would have come."""
    directory, *_ = failed
    status, output, _ = run_forked(directory, "nothing")
    assert 0 == status
    assert "resuming from" in output
    assert f"steps=16 weights={expected()}" in output


@pytest.mark.parametrize(("rank", "point"), [(i % 2, point) for i, point in enumerate(HOOKS)])
def test_a_failure_at_any_point_ends_both(rank, point):
    """The other one with an error that says which was first."""
    errors = ends_in_group(2, group_stops.failed, rank, point)
    assert "ValueError: it was to be expected" == errors[rank]
    assert errors[1 - rank].startswith("GroupError: ")


def test_a_process_that_is_killed_ends_all(tmp_path):
    """Soon, and with a status that is not 0."""
    status, output, ended = run_forked(tmp_path, "kill")
    assert status != 0
    assert seconds_to_end(output, ended) < 10
    assert not list(tmp_path.glob("crash-*"))


def test_a_group_of_which_one_was_killed_is_restarted(tmp_path):
    """It resumes from the last checkpoint, to the same bits, without a setting of torchrun."""
    whole = in_group(2, group_checkpoints.saved_with, tmp_path / "whole", {"n_epochs": 20})
    n_restarts, facts = elastic_run(2, tmp_path / "killed", Kills(1, skew=0.3))
    assert 1 == n_restarts
    assert [facts_of(each) for each in whole] == facts


def test_a_signal_to_one_process_ends_all_at_one_safe_point(tmp_path):
    """A checkpoint of that point is there, with all that the processes had."""
    status, output, _ = run_forked(tmp_path, "signal")
    assert status != 0
    assert "SIGTERM ended the run; saved" in output
    assert 2 <= len(list(tmp_path.glob("0*")))
