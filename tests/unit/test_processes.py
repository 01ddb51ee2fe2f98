"""Calls in a process of their own."""

import os
import signal
import time

import pytest

from ttl_core.processes import Outcome, call_forked


def test_returns_what_the_function_returned():
    """Also where that is longer than what a pipe holds."""
    assert Outcome("a" * 1_000_000) == call_forked(lambda: "a" * 1_000_000, 60)


@pytest.mark.parametrize(
    ("function", "failure"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed the process with signal 9"),
        (lambda: os._exit(0), "ended the process with status 0"),
        (lambda: time.sleep(600), "did not end within 0.2 seconds"),
        (lambda: os.closerange(3, 100) or time.sleep(600), "did not end within 0.2 seconds"),
    ],
    ids=["crash", "exit", "hang", "closed pipe"],
)
def test_says_how_a_process_ended(function, failure):
    """A crash, an exit and a hang are results."""
    assert Outcome(failure=failure) == call_forked(function, 60 if "ed" in failure else 0.2)


def test_an_exception_ends_the_process_with_its_traceback(capfd):
    """It goes to standard error, as in any program."""
    assert "ended the process with status 1" == call_forked(lambda: 1 / 0, 60).failure
    assert capfd.readouterr().err.endswith("ZeroDivisionError: division by zero\n")


def test_what_a_function_has_started_ends_with_it(tmp_path):
    """A process that it leaves behind is killed, and not waited for."""

    def start():
        if not os.fork():
            time.sleep(0.5)
            (tmp_path / "late").touch()
            os._exit(0)
        return "started"

    assert "started" == call_forked(start, 60).value
    time.sleep(0.7)
    assert [] == list(tmp_path.iterdir())
