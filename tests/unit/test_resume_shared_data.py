"""C1: one DataLoader or sampler for training and validation, resumed from every safe point."""

from __future__ import annotations

import pytest
import torch
from data import Stream
from torch.utils.data import BatchSampler, DataLoader

from ttl_core import LoopComponent, SeededSampler, TrainTestLoop

pytestmark = pytest.mark.usefixtures("one_thread")


class Seen(LoopComponent):
    """A component that records batches, and the state at each safe point with their number."""

    def __init__(self):
        self.batches, self.states = [], []

    def on_batch_begin(self, loop):
        self.batches.append((loop.epoch_desc, loop.batch.tolist()))

    def on_safe_point(self, loop):
        self.states.append((len(self.batches), loop.state_dict()))


def one_loader():
    """Return one loader as both."""
    loader = DataLoader(range(12), batch_size=3, sampler=SeededSampler(range(12)))
    return loader, loader


def one_sampler():
    """Return two loaders of one sampler."""
    sampler = SeededSampler(range(12))
    return [DataLoader(range(12), batch_size=n, sampler=sampler) for n in (3, 4)]


def one_batch_sampler():
    """Return two loaders of one sampler of batches."""
    sampler = BatchSampler(SeededSampler(range(12)), 3, drop_last=False)
    return [DataLoader(range(12), batch_sampler=sampler) for _ in range(2)]


def named_sets():
    """Return a loader, and named validation sets of which one is the same loader."""
    train, other = one_sampler()
    return train, {"same": train, "other": other}


class Countdown(Stream):
    """Data whose next epoch begins where their state says, as a stateful loader's does."""

    def __init__(self):
        self.next, self.begin = 0, 0

    def __iter__(self):
        begin, self.begin = self.begin, 0
        return self._iterate(begin)

    def _iterate(self, begin):
        for number in range(begin, 4):
            self.next = number + 1
            yield torch.tensor([number])
        self.next = 0

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.begin = self.next = state["next"]


def one_object_with_state():
    """Return one object that keeps its own position as both."""
    data = Countdown()
    return data, data


@pytest.mark.parametrize(
    "make_data", [one_loader, one_sampler, one_batch_sampler, named_sets, one_object_with_state]
)
def test_shared_data_have_the_same_order_after_resuming(make_data):
    """C1: whatever training and validation share, each resumed run sees what was left."""

    def make():
        return TrainTestLoop(torch.nn.Identity(), [Seen()], *make_data())

    full = make()
    full.train(2)
    full = full.components["seen"]
    for n, state in full.states:
        resumed = make()
        resumed.load_state_dict(state)
        resumed.train(2)
        assert full.batches[n:] == resumed.components["seen"].batches


def test_the_example_of_the_issue():
    """C1: ended at step 5, the next batch is [3, 7, 2], as by hand."""
    full = TrainTestLoop(torch.nn.Identity(), [Seen()], *one_loader())
    full.train(2)
    sampler = SeededSampler(range(12))
    sampler.set_epoch(2)  # epoch 1 was the validation
    assert [3, 7, 2] == [int(index) for index in sampler][3:6]
    state = next(s for _, s in full.components["seen"].states if s["position"]["global_step"] == 5)
    resumed = TrainTestLoop(torch.nn.Identity(), [Seen()], *one_loader())
    resumed.load_state_dict(state)
    resumed.train(2)
    assert ("train", [3, 7, 2]) == resumed.components["seen"].batches[0]


def test_persistent_workers_of_a_shared_loader_are_started_once():
    """C1: restoring the validation data does not restart the iterator that trains."""

    def make():
        sampler = SeededSampler(range(6))
        loader = DataLoader(
            range(6), batch_size=2, sampler=sampler, num_workers=1, persistent_workers=True
        )
        return TrainTestLoop(torch.nn.Identity(), [Seen()], loader, loader)

    full = make()
    full.train(1)
    full = full.components["seen"]
    n, state = full.states[1]
    resumed = make()
    resumed.load_state_dict(state)
    resumed.train(1)
    assert full.batches[n:] == resumed.components["seen"].batches
