"""What going back to an earlier state costs, and keeping one, against copying it by hand."""

import itertools
import random
import time

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl
from ttl_core.testing import Step

pytestmark = pytest.mark.bench

N = 4500  # 243 MB with the state of Adam


class Adam(Step):
    """Plain steps of Adam."""

    def on_train_begin(self, loop):
        super().on_train_begin(loop)
        loop.optimizer = torch.optim.Adam(loop.model.parameters(), foreach=False)
        loop.scheduler = None


class ByHand(LoopComponent):
    """States that a script keeps and restores by itself, and a clock of that."""

    @staticmethod
    def tensors(loop):
        states = loop.optimizer.state.values()
        return [*loop.model.parameters(), *(v for state in states for v in state.values())]

    def save(self, loop):
        if not hasattr(self, "kept"):
            self.kept = [torch.empty_like(value) for value in self.tensors(loop)]
        for kept, value in zip(self.kept, self.tensors(loop), strict=True):
            kept.copy_(value)
        self.random = torch.get_rng_state(), random.getstate()

    def restore(self, loop):
        with torch.no_grad():
            for kept, value in zip(self.kept, self.tensors(loop), strict=True):
                value.copy_(kept)
        torch.set_rng_state(self.random[0])
        random.setstate(self.random[1])


class Clock(LoopComponent):
    """Keeps a state in two ways at the first safe point, and goes back to it in both."""

    def __init__(self):
        self.by_hand, self.first, self.state, self.start = ByHand(), None, None, None
        self.keeping, self.going_back = [], []
        self.n_left = 0

    def train(self, loop, n):
        self.n_left = n
        loop.train(n_epochs=1)

    @hookimpl(tryfirst=True)  # before gradients are freed, which takes long
    def on_grads_reset(self, loop):
        if self.start is not None:
            by_loop = time.perf_counter() - self.start
            if self.seconds_by_hand is None:
                self.seconds_by_hand = self.restore_by_hand(loop)
            self.going_back.append((by_loop, self.seconds_by_hand))
            self.start = None

    def restore_by_hand(self, loop):
        start = time.perf_counter()
        self.by_hand.restore(loop)
        return time.perf_counter() - start

    def on_safe_point(self, loop):
        if self.n_left == 0:
            loop.stop()
        self.n_left -= 1
        self.first = self.first or loop.state_dict()
        times = [time.perf_counter()]
        with torch.no_grad():
            self.state = loop.state_dict(out=self.state)
            times.append(time.perf_counter())
            self.by_hand.save(loop)
        times.append(time.perf_counter())
        self.keeping.append((times[1] - times[0], times[2] - times[1]))
        # each of the two is first in half of the cases, as the second finds memory in caches
        self.seconds_by_hand = self.restore_by_hand(loop) if self.n_left % 2 else None
        self.start = time.perf_counter()
        loop.rewind(self.first)


@pytest.fixture(scope="module")
def clock():
    """Return a clock with what was measured."""
    clock = Clock()
    data = [(torch.randn(2, N), torch.zeros(2, dtype=torch.long))] * 3
    loop = TrainTestLoop(torch.nn.Linear(N, N), [Adam(), clock], data)
    clock.train(loop, 30)
    return clock


@pytest.mark.parametrize(
    ("what", "kind"), [("rewinding to a state", "going_back"), ("keeping one", "keeping")]
)
def test_a_state_in_memory(assert_ratio, clock, what, kind):
    """It takes little longer than copying the tensors of model and optimizer one by one."""
    times, pair = itertools.cycle(getattr(clock, kind)[5:]), [0.0, 0.0]

    def by_loop():
        pair[:] = next(times)
        return pair[0]

    assert_ratio(
        f"{what} of 243 MB in memory",
        by_loop,
        "copying tensors by hand",
        lambda: pair[1],
        limit=1.2,
        repeats=15,
        unit="ms",
    )
