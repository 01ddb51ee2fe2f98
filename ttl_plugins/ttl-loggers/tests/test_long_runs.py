"""Long runs, and runs that are killed."""

import gc
import os
import signal
import time

import pytest
import torch

from ttl_core import TrainTestLoop, use

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a run")


def resident_bytes():
    """Return how much memory this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_growth(directory, log, n_steps):
    """Return by how many bytes a run with all loggers grows, after its first tenth."""
    loggers = [use("csv", directory=directory), use("jsonl", directory=directory), "history"]
    loop = TrainTestLoop(torch.nn.Identity(), [log, *loggers], range(n_steps // 10))
    loop.train(1)
    gc.collect()
    before = resident_bytes()
    loop.train(9)
    gc.collect()
    growth = resident_bytes() - before
    for path in directory.iterdir():
        with path.open("rb") as file:
            assert n_steps == sum(line.count(b"batch") for line in file)
    return growth


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
@pytest.mark.parametrize(
    "n_steps", [50_000, pytest.param(1_000_000, marks=pytest.mark.soak)], ids=str
)
def test_memory_does_not_grow_with_the_steps(tmp_path, log_these, n_steps):
    """A run holds only what was not written yet."""
    loss = torch.tensor(0.25)
    log = log_these(lambda loop: loop.log({"loss": loss}))
    growth = memory_growth(tmp_path, log, n_steps)
    print(f"\n{n_steps} steps: memory has grown by {growth / 1e6:.1f} MB")
    assert growth < 20e6


@needs_fork
def test_a_run_that_is_killed_loses_at_most_the_last_second(files, log_these):
    """What was logged more than a second before kill -9 is in the file."""
    reader, writer = os.pipe()

    def log(loop):
        loop.log({"a": loop.batch})
        os.write(writer, f"{time.monotonic()}\n".encode())
        time.sleep(0.002)

    pid = os.fork()
    if not pid:
        try:
            files.make_loop(log_these(log), data=range(100_000)).train(1)
        finally:
            os._exit(1)
    time.sleep(1.7)
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    assert -signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(writer)
    with os.fdopen(reader) as pipe:
        logged_at = [float(line) for line in pipe]
    steps = files.steps()
    assert [*range(len(steps))] == [step - 1 for step in steps]
    lost = logged_at[len(steps) :]
    assert len(steps) > 50
    assert all(killed_at - seconds < 1 for seconds in lost)
