"""The table of what each component costs."""

import threading
import time

import pytest
import torch
from ttl_profile import component_timer, timing

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use


class Clock:
    """A clock that goes only while a component works."""

    now = 0.0

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Let components tell how long they take, exactly."""
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(component_timer, "perf_counter", lambda: clock.now)
    return clock


def timed(*components, data=(0, 1), disabled=False):
    """Return the rows of a run, without shares: seconds and count by component and point."""
    timer = component_timer.ComponentTimer(show=False)
    loop = TrainTestLoop(torch.nn.Identity(), [timer, *components], data)
    if disabled:
        loop.components.disable(timer)
    loop.train(1)
    return {(row.component, row.point): (row.seconds, row.count) for row in timer.rows}


class Logging(LoopComponent):
    """A component that works, and logs."""

    def __init__(self, clock):
        self.clock = clock

    def on_batch_end(self, loop):
        self.clock.work(1)
        loop.log({"x": 1.0})
        self.clock.work(2)


class Sink(LoopComponent):
    """A component that works on what is logged."""

    def __init__(self, clock):
        self.clock = clock

    def on_log(self, loop, metrics):
        self.clock.work(10)


class Around(LoopComponent):
    """A component that surrounds a run, epochs and batches."""

    def __init__(self, clock):
        self.clock = clock

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        self.clock.work(100)
        return (yield)

    @hookimpl(wrapper=True)
    def on_batch_end(self, loop):
        self.clock.work(3)
        try:
            return (yield)
        finally:
            self.clock.work(4)


def batches(clock):
    """Return data that take 5 seconds a batch."""

    class Data:
        def __len__(self):
            return 2

        def __iter__(self):
            for batch in range(2):
                clock.work(5)
                yield batch

    return Data()


def test_each_second_counts_once(clock):
    """Not for the component in whose hook another one works, nor for a wrapper around it."""
    rows = timed(Around(clock), Logging(clock), Sink(clock), data=batches(clock))
    assert rows == {
        ("around", "around_run"): (100, 1),
        ("around", "on_batch_end"): (14, 2),
        ("logging", "on_batch_end"): (6, 2),
        ("sink", "on_log"): (20, 2),
        ("(data and loop)", ""): (10, 1),
    }


def test_the_rows_are_sorted_and_their_shares_are_of_the_run(clock):
    """The longest first; together they are the run."""
    timer = component_timer.ComponentTimer(show=False)
    loop = TrainTestLoop(torch.nn.Identity(), [timer, Logging(clock), Sink(clock)], [0])
    loop.train(1)
    assert ["sink", "logging", "(data and loop)"] == [row.component for row in timer.rows]
    assert pytest.approx(1) == sum(row.share for row in timer.rows)
    assert pytest.approx(10 / 13) == timer.rows[0].share
    assert pytest.approx(10e6) == timer.rows[0].mean


def test_each_run_has_its_own_table(clock):
    """What the last one took does not count again."""
    timer = component_timer.ComponentTimer(show=False)
    loop = TrainTestLoop(torch.nn.Identity(), [timer, Logging(clock)], [0])
    loop.train(1)
    loop.train(2)
    assert [6, 0] == [row.seconds for row in timer.rows]


def test_the_time_of_a_hook_that_fails_counts(clock):
    """The exception passes, and the table is there."""

    class Failing(LoopComponent):
        def on_batch_end(self, loop):
            clock.work(1)
            raise ValueError("bad")

    timer = component_timer.ComponentTimer(show=False)
    loop = TrainTestLoop(torch.nn.Identity(), [timer, Failing(), Around(clock)], [0])
    with pytest.raises(ValueError, match="bad"):
        loop.train(1)
    seconds = {(row.component, row.point): row.seconds for row in timer.rows}
    assert (1, 7) == (seconds["failing", "on_batch_end"], seconds["around", "on_batch_end"])


def test_disabled_it_replaces_nothing(clock):
    """The loop calls the methods of components themselves."""
    part = Logging(clock)
    timer = component_timer.ComponentTimer()
    loop = TrainTestLoop(torch.nn.Identity(), [timer, part], [0, 0])
    loop.components.disable(timer)
    loop.train(1)  # the first call of a hook is checked
    assert part.on_batch_end == loop._hooks.on_batch_end
    assert [] == timer.rows
    loop.components.enable(timer)
    loop.train(1)
    assert timer.rows


def test_other_threads_are_not_timed(clock):
    """They would be part of whatever the run is doing."""

    class Threaded(LoopComponent):
        def on_batch_end(self, loop):
            thread = threading.Thread(target=loop.log, args=[{"x": 1}])
            thread.start()
            thread.join()

    assert (0, 2) == timed(Threaded(), Sink(clock))["sink", "on_log"]


def test_the_table_is_printed_when_the_run_ends(capsys):
    """With a heading, and numbers that line up."""
    loop = TrainTestLoop(torch.nn.Identity(), ["component-timer", Sleep()], [0] * 3)
    loop.train(1)
    heading, *rows = capsys.readouterr().out.splitlines()
    assert ["component", "point", "total", "s", "share", "count", "mean", "µs"] == heading.split()
    assert ["sleep", "on_batch_end"] in [row.split()[:2] for row in rows]
    assert len(heading) == len(rows[0])


class Sleep(LoopComponent):
    def on_batch_end(self, loop):
        time.sleep(0.002)


def test_it_waits_for_the_device_if_that_is_requested(monkeypatch):
    """Before and after each call; without a device there is nothing to wait for."""
    assert use("component-timer", synchronize=True) is not None
    waits = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waits.append(1))
    timer = component_timer.ComponentTimer(synchronize=True, show=False)
    TrainTestLoop(torch.nn.Identity(), [timer, Sleep()], [0] * 3).train(1)
    assert 6 == len(waits)
