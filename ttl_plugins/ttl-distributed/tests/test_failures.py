"""Failures of one process, in groups that torchrun has started."""

import os
import subprocess
import sys
import time
from pathlib import Path

import group_cases
import group_program
import pytest
from process_groups import in_group, run_by_torchrun

PROGRAM = Path(group_program.__file__)


def run(directory, what):
    """Return the exit status and the output of two forked processes, and when they ended."""
    output = directory / "output.txt"
    output.unlink(missing_ok=True)
    status = run_by_torchrun(2, str(output), group_program.main, str(directory), what)
    return status, output.read_text(), time.time()


def run_program(directory, what):
    """Return the same of a program that torchrun starts: processes that import torch."""
    program = [str(PROGRAM), str(directory), what]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *program]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr, time.time()


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The directory of a run that has failed by an exception, and what came of it."""
    directory = tmp_path_factory.mktemp("failed")
    return directory, *run_program(directory, "raise")


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
    status, output, _ = run(directory, "nothing")
    assert 0 == status
    assert "resuming from" in output
    assert f"steps=16 weights={expected()}" in output


def expected():
    """Return what a run without an interruption comes to, in two processes."""
    return in_group(2, group_cases.train, "alone")[0]["weights"]["2.bias"]


def test_a_process_that_is_killed_ends_all(tmp_path):
    """Soon, and with a status that is not 0."""
    status, output, ended = run(tmp_path, "kill")
    assert status != 0
    assert seconds_to_end(output, ended) < 10
    assert not list(tmp_path.glob("crash-*"))


def test_a_signal_to_one_process_ends_all_at_one_safe_point(tmp_path):
    """A checkpoint of that point is there, with all that the processes had."""
    status, output, _ = run(tmp_path, "signal")
    assert status != 0
    assert "SIGTERM ended the run; saved" in output
    assert 2 <= len(list(tmp_path.glob("0*")))
