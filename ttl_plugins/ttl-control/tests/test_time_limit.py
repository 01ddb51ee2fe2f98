"""The behaviour of `time-limit`."""

from datetime import timedelta

import numpy
import pytest
import torch

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, use


class Clock(LoopComponent):
    """A clock by which each training batch takes a second."""

    now = 100.0

    def on_batch_end(self, loop):
        self.now += loop.is_training


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that replaces the one of the component."""
    clock = Clock()
    monkeypatch.setattr("ttl_control.time_limit.monotonic", lambda: clock.now)
    return clock


def make_loop(clock, *others, n_train=10, **config):
    """Return a loop of 10 seconds an epoch with a time limit."""
    return TrainTestLoop(
        torch.nn.Identity(), [clock, use("time-limit", **config), *others], [0] * n_train, [0]
    )


@pytest.mark.parametrize(
    "config",
    [
        {"seconds": 63},
        {"minutes": 1.05},
        {"hours": 0.01, "seconds": 27},
        {"seconds": numpy.int64(63)},
        {"seconds": numpy.float32(63)},
        {"limit": timedelta(minutes=1, seconds=3)},
    ],
)
def test_stops_when_the_time_is_over(clock, config):
    """It stops at the first safe point after the time, given in any way."""
    loop = make_loop(clock, **config)
    loop.train(n_epochs=100)
    assert (63, 6) == (loop.global_step, loop.epoch_num)


def test_the_reason_is_recorded(clock, caplog):
    """Why it stopped is an attribute and a record of logging."""
    loop = make_loop(clock, minutes=1)
    with caplog.at_level("INFO"):
        loop.train(n_epochs=100)
    assert "the time limit of 0:01:00 is reached" == loop.components["time-limit"].reason
    assert ["time-limit: the time limit of 0:01:00 is reached"] == caplog.messages


def test_leaves_a_shorter_run_alone(clock):
    """A run that ends in time has no reason to stop."""
    loop = make_loop(clock, seconds=30)
    loop.train(n_epochs=2)
    assert (20, None) == (loop.global_step, loop.components["time-limit"].reason)


def test_each_train_has_the_full_time(clock):
    """The time of an earlier train() does not count."""
    loop = make_loop(clock, seconds=15)
    loop.train(n_epochs=1)
    clock.now += 1000
    loop.train(n_epochs=1)
    assert 2 == loop.epoch_num


def test_stops_after_other_components_at_the_safe_point(clock):
    """A component that saves at the safe point at which it stops has saved."""

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            self.saved = loop.global_step

    loop = make_loop(clock, Save(), seconds=5)
    loop.train(n_epochs=1)
    assert 5 == loop.components["save"].saved


def test_time_used_before_counts_in_a_resumed_run(clock):
    """A resumed run has what was left of the time when it was saved."""
    states = []

    class Save(LoopComponent):
        def on_safe_point(self, loop):
            states.append(loop.components["time-limit"].state_dict())

    class Load(LoopComponent):
        def on_train_begin(self, loop):
            loop.components["time-limit"].load_state_dict(states[0])

    make_loop(clock, Save(), seconds=15).train(n_epochs=1)
    clock.now += 1000
    loop = make_loop(clock, Load(), seconds=15)
    loop.train(n_epochs=9)
    assert [{"used": 1.0}, 14] == [states[0], loop.global_step]


@pytest.mark.parametrize("place", [0, 9], ids=["before", "after"])
def test_the_time_of_other_components_in_on_train_begin_counts(clock, place):
    """What components before and after it do in on_train_begin takes time from the limit."""

    class Prepare(LoopComponent):
        def on_train_begin(self, loop):
            clock.now += 3

    loop = make_loop(clock, seconds=5)
    loop.components.insert(place, Prepare())
    loop.train(n_epochs=1)
    assert 2 == loop.global_step


def test_enabled_in_mid_run_it_starts_its_clock_then(clock):
    """Without on_train_begin the time begins with the first safe point."""

    class Enable(LoopComponent):
        def on_batch_end(self, loop):
            if loop.global_step == 8:
                loop.components.enable("time-limit")

    loop = make_loop(clock, Enable(), seconds=5)
    for _ in range(2):  # the clock of the first run is not that of the second
        loop.global_step = 0
        loop.components.disable("time-limit")
        loop.train(n_epochs=9)
        assert 13 == loop.global_step


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has to be above 0"),
        ({"seconds": -1}, "has to be above 0"),
        ({"limit": 3}, "write seconds=3"),
        ({"limit": timedelta(1), "seconds": 3}, "given twice"),
        ({"seconds": "3"}, "seconds is '3', but has to be a number"),
        ({"hours": True}, "hours is True"),
    ],
)
def test_refuses_unusable_arguments(clock, config, message):
    """Arguments that cannot work are refused when the component is made."""
    with pytest.raises(ArgumentError, match=message):
        make_loop(clock, **config)
