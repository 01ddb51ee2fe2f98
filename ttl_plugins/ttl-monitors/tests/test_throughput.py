"""The behaviour of `throughput`, by a clock of the test."""

from types import SimpleNamespace

import pytest
import torch
from loops import act_at, make_component
from torch.utils._python_dispatch import _get_current_dispatch_mode
from ttl_monitors import Throughput

from ttl_core import ArgumentError


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def advance(self, seconds):
        self.now += seconds


class SlowData:
    """Batches that take a second each.

    Args:
        clock: the clock.
        n: how many there are.
    """

    def __init__(self, clock, n=8):
        self.clock = clock
        self.n = n

    def __iter__(self):
        for _ in range(self.n):
            self.clock.advance(1)
            yield torch.ones(3, 2)


@pytest.fixture
def clock(monkeypatch):
    """Return the clock that the component reads."""
    clock = Clock()
    monkeypatch.setattr(
        "ttl_monitors.throughput.time", SimpleNamespace(perf_counter=lambda: clock.now)
    )
    return clock


def test_what_counts_is_the_time_of_batches_and_of_waiting_for_them(run, clock):
    """A batch takes 3 s and 1 s to load; safe points and validations do not count."""
    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    save = act_at("on_safe_point", lambda loop: clock.advance(50))
    logged = run(
        *(work, save, Throughput(every=2, tokens=torch.numel)),
        data=SlowData(clock),
        valid_data=SlowData(clock, 1),
    )
    assert [2, 4, 6, 8] == [step for step, _ in logged.seen]
    for name, value in {
        "batches-per-second": 1 / 4,
        "samples-per-second": 3 / 4,
        "tokens-per-second": 6 / 4,
        "data-wait": 1 / 4,
    }.items():
        assert dict.fromkeys((2, 4, 6, 8), value) == logged.values(name)


def test_time_for_which_it_is_disabled_does_not_count(run, clock):
    """What is measured continues where it was."""

    def toggle(loop):
        if loop.batch_num == 2:
            loop.components.disable("throughput")
        if loop.batch_num == 5:
            loop.components.enable("throughput")

    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    logged = run(work, act_at("on_batch_begin", toggle), Throughput(every=2), data=SlowData(clock))
    assert [2, 8] == [step for step, _ in logged.seen]
    assert {1 / 4} == set(logged.values("data-wait").values())


def test_batches_that_accumulate_count(run, clock):
    """on_grads_reset is not called for each of them."""
    accumulate = act_at(
        "on_batch_begin", lambda loop: setattr(loop, "is_stepping", loop.batch_num % 2)
    )
    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    logged = run(work, accumulate, Throughput(every=4), data=SlowData(clock))
    assert {2: 1 / 4, 4: 1 / 4} == logged.values("batches-per-second")


def test_samples_are_counted_as_the_user_says(run, clock):
    """By default they are what the batch's mean loss is weighted with, also as a tensor."""
    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    count = make_component(
        on_batch_begin=lambda loop: setattr(loop, "batch_size", torch.tensor(12.0))
    )
    for component, expected in (
        (Throughput(every=2), 12 / 4),
        (Throughput(every=2, samples=lambda batch: 8), 8 / 4),
    ):
        logged = run(work, count, component, data=SlowData(clock, 2))
        assert {2: expected} == logged.values("samples-per-second")


def test_flops_are_counted_once(run, clock):
    """A layer of 2 features takes 2 * 3 * 2 FLOPs forward, and as many for its weights' gradient.

    The batch in which they are counted is slow, and does not count otherwise.
    """
    modes = []
    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    look = act_at("on_optim_step", lambda loop: modes.append(_get_current_dispatch_mode()))
    logged = run(work, look, Throughput(every=2, peak_flops=100), data=SlowData(clock, 5))
    assert {3: 24 / 4 / 100, 5: 24 / 4 / 100} == logged.values("mfu")
    assert [None] * 5 == modes


def test_a_hook_of_a_subclass_is_called_also_where_no_flops_are_counted(run, clock):
    """Its own hooks at these points are left out, those of a subclass are not."""

    class Own(Throughput):
        seen = 0

        def on_forward_pass(self, loop):
            self.seen += 1

    own = Own()
    run(own, data=SlowData(clock, 2))
    assert 2 == own.seen


def test_flops_can_be_given(run, clock):
    """They are of one batch."""
    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    component = Throughput(every=2, flops=40, peak_flops=100)
    assert {2: 0.1} == run(work, component, data=SlowData(clock, 2)).values("mfu")


def test_a_model_without_known_operations_has_no_mfu(run, clock, caplog):
    """The warning says what to do."""

    class Own(torch.nn.Linear):
        def forward(self, inputs):
            return inputs * self.weight

    work = act_at("on_forward_pass", lambda loop: clock.advance(3))
    logged = run(work, Throughput(every=1, peak_flops=1), model=Own(2, 1), data=SlowData(clock))
    assert "mfu" not in logged.names()
    assert ["throughput: no FLOPs could be counted: give flops=, for the mfu"] == caplog.messages


def test_counting_ends_where_the_first_batch_fails(run, clock):
    """No mode is left active."""

    def fail(loop):
        raise ValueError("planned")

    with pytest.raises(ValueError, match="planned"):
        run(Throughput(peak_flops=1), act_at("on_forward_pass", fail), data=SlowData(clock))
    assert _get_current_dispatch_mode() is None


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"tokens": 5}, {"peak_flops": 0}, {"flops": 1}], ids=str
)
def test_unusable_arguments_are_refused(options):
    """The error names the argument and its value."""
    ((name, value),) = options.items()
    with pytest.raises(ArgumentError, match=f"{name}.*{value}"):
        Throughput(**options)
