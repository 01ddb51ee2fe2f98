"""How ratios are measured and shown: interleaved, as medians, in one table at the end."""

import gc
import resource
import statistics
import time

import pytest

ROWS = []


def seconds(run):
    """Return how long a call computes, or what it returns, with the garbage collector disabled.

    It is processor time, in which other programs on the machine do not count.
    """
    gc.collect()
    gc.disable()
    try:
        start = processor_time()
        result = run()
        return result if isinstance(result, float) else processor_time() - start
    finally:
        gc.enable()


def processor_time():
    """Return the processor time of this process, and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Measured:
    """The median ratio of two things that are measured in turn."""

    def __init__(self, one, other, repeats):
        one(), other()  # warm up
        pairs = [(seconds(one), seconds(other)) for _ in range(repeats)]
        self.one = statistics.median(a for a, _ in pairs)
        self.other = statistics.median(b for _, b in pairs)
        self.ratio = statistics.median(a / b for a, b in pairs)


@pytest.fixture
def assert_ratio():
    """Measure one thing against another, add a row to the table, and check the ratio."""
    gc.collect()
    gc.freeze()  # the objects that are there: collections between measurements come past the others

    def check(what, one, against, other, *, limit, repeats=9, per=1, unit="µs"):
        measured = Measured(one, other, repeats)
        if measured.ratio > limit:  # it may be noise: measure longer, and use that
            measured = Measured(one, other, max(45, 3 * repeats))
        scale = {"µs": 1e6, "ms": 1e3}[unit] / per
        ROWS.append(
            f"{what:58} {measured.one * scale:8.2f} {unit}  {measured.other * scale:8.2f} {unit} "
            f"{measured.ratio:7.3f} {limit:6.2f}   {against}"
        )
        assert measured.ratio <= limit

    return check


def pytest_terminal_summary(terminalreporter):
    """Print the table."""
    if ROWS:
        head = f"{'what':58} {'it':>11}  {'other':>11} {'ratio':>7} {'limit':>6}   against"
        terminalreporter.write_line("\n" + head + "\n" + "\n".join(ROWS))
