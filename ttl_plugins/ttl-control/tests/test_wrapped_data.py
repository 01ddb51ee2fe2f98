"""A9: runs resume inside epochs of the data that `limit-batches` and `overfit-batch` make."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from ttl_core import LoopComponent, SeededSampler, StateError, TrainTestLoop, use


class Seen(LoopComponent):
    """A component that records batches, and the state at each safe point with their number."""

    def __init__(self):
        self.batches, self.states = [], []

    def on_batch_begin(self, loop):
        self.batches.append((loop.epoch_desc, torch.as_tensor(loop.batch).tolist()))

    def on_safe_point(self, loop):
        self.states.append((len(self.batches), loop.state_dict()))


class Counting:
    """Data without a length that keep their position."""

    def __init__(self):
        self.epoch, self.next, self.begin = 0, 0, 0

    def __iter__(self):
        begin, self.begin = self.begin, 0
        self.epoch += not begin
        return self._iterate(begin, self.epoch)

    def _iterate(self, begin, epoch):
        for number in range(begin, 5):
            self.next = number + 1
            yield 10 * epoch + number
        self.next = 0

    def state_dict(self):
        return {"next": self.next, "epoch": self.epoch}

    def load_state_dict(self, state):
        self.epoch, self.begin = state["epoch"], state["next"]
        self.next = self.begin


def seeded():
    """Return a loader whose order can be repeated."""
    return DataLoader(range(10), batch_size=2, sampler=SeededSampler(range(10)))


def stateful():
    """Return a loader that keeps its own position."""
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(range(10), batch_size=2, shuffle=True)


def listed():
    """Return a list."""
    return [1, 2, 3, 4, 5]


def make_loop(components, make_data):
    """Return a loop of components and a recorder."""
    torch.manual_seed(0)
    return TrainTestLoop(torch.nn.Identity(), [*components, Seen()], make_data(), [0, 1])


LIMIT = use("limit-batches", train=3)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's own
@pytest.mark.parametrize(
    ("components", "make_data"),
    [
        *itertools.product(
            ([LIMIT], ["overfit-batch"], [LIMIT, "overfit-batch"], ["overfit-batch", LIMIT]),
            (listed, seeded, stateful),
        ),
        (["overfit-batch"], Counting),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_run_resumes_inside_an_epoch_of_wrapped_data(components, make_data):
    """A9: from every safe point, a resumed run sees the batches that were left."""
    full = make_loop(components, make_data)
    full.train(2)
    full = full.components["seen"]
    for n, state in full.states:
        resumed = make_loop(components, make_data)
        resumed.load_state_dict(state)
        resumed.train(2)
        assert full.batches[n:] == resumed.components["seen"].batches


def test_what_cannot_be_repeated_is_named_without_its_wrapper():
    """A9: the error is about the data that were given, and shows the line to change."""
    loop = make_loop([LIMIT], lambda: DataLoader(range(10), shuffle=True))
    with pytest.raises(StateError) as caught:
        loop.train(1)
    expected = (
        "no run could resume in the middle of an epoch of its data, a "
        "DataLoader whose order a RandomSampler decides: the order of its batches cannot be "
        "repeated. Write DataLoader(dataset, ..., sampler=ttl_core.SeededSampler(dataset)) in "
        "place of shuffle=True, or torchdata's StatefulDataLoader"
    )
    assert expected == str(caught.value)


def test_one_batch_is_repeated_whatever_the_order_of_the_data():
    """A9: overfit-batch reads data once, so that a run can resume with any of known length."""
    full = make_loop(["overfit-batch"], lambda: DataLoader(range(10), shuffle=True))
    full.train(1)
    n, state = full.components["seen"].states[4]
    resumed = make_loop(["overfit-batch"], lambda: DataLoader(range(10, 20), shuffle=True))
    resumed.load_state_dict(state)
    resumed.train(1)
    assert full.components["seen"].batches[n:] == resumed.components["seen"].batches


def test_a_state_of_an_earlier_version_without_a_batch_is_loaded():
    """A9: a state in which overfit-batch had none resumes with the first batch there is."""
    full = make_loop(["overfit-batch"], listed)
    full.train(1)
    _, state = full.components["seen"].states[-1]
    del state["components"]["overfit-batch"]
    resumed = make_loop(["overfit-batch"], listed)
    resumed.load_state_dict(state)
    resumed.train(2)
    assert ("train", 1) == resumed.components["seen"].batches[0]
