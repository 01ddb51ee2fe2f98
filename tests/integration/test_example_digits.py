"""The example of digits, run as a user runs it."""

import re
import signal
import subprocess
import sys

import pytest
from examples import DIGITS, assert_trained_well, run_example


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Return what the example prints if it is not interrupted."""
    return run_example(DIGITS, cwd=tmp_path_factory.mktemp("digits"))


def test_the_example_learns_to_read_digits(printed):
    """The example reaches more than 0.97 on the held-out third and says what ran."""
    assert_trained_well(printed)


def test_the_example_resumes_after_ctrl_c(printed, tmp_path):
    """Interrupted in its second epoch, the example resumes, to the result of the complete run."""
    with subprocess.Popen(
        [sys.executable, "-u", DIGITS],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        first = next(line for line in running.stdout if line.startswith("valid epoch 1/10"))
        running.send_signal(signal.SIGINT)
        rest, complaint = running.communicate()
    assert running.returncode in (-signal.SIGINT, 130)
    assert "Start the same script again to resume" in complaint.splitlines()[-1]
    assert "epoch 10/10" not in first + rest
    resumed = run_example(DIGITS, cwd=tmp_path)
    assert "epoch 1/10" not in resumed
    assert printed.splitlines()[-1] == resumed.splitlines()[-1]
    assert without_seconds(printed, "10/10") == without_seconds(resumed, "10/10")


def without_seconds(printed, epoch):
    """Return the lines of an epoch, without how long it took."""
    lines = [line for line in printed.splitlines() if f"epoch {epoch}" in line]
    return [re.sub(r"[\d.]+ s ", "", line) for line in lines]
