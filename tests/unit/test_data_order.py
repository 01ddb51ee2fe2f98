"""loop.check_resumable(): whether a run can resume inside an epoch of its data."""

from __future__ import annotations

import pytest
import torch
from data import Stream
from recording import StateRecorder
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from ttl_core import LoopComponent, StateError, TrainTestLoop

DATASET = TensorDataset(torch.arange(6.0))


class Seeded(Sampler):
    """A sampler whose order is a function of (seed, epoch)."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.seed, self.epoch = 0, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(range(len(self.dataset)))

    def __len__(self):
        return len(self.dataset)


class SeededBatches(Seeded):
    """A sampler of batches in such an order."""

    def __iter__(self):
        return iter([[0, 1], [2, 3]])


class OwnBatches(BatchSampler):
    """A sampler of batches in an order of its own."""


class StreamDataset(IterableDataset):
    """Samples without a length."""

    def __iter__(self):
        return iter(torch.arange(6.0))


class WithState:
    """Data that keep their own position."""

    def __iter__(self):
        return iter(range(3))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Check(LoopComponent):
    """A component that checks in each batch whether a run could resume from there."""

    def __init__(self):
        self.errors = []

    def on_batch_end(self, loop):
        try:
            loop.check_resumable()
        except StateError as error:
            self.errors.append((loop.epoch_desc, str(error)))


class Generated:
    """Data that generate their batches, as often as they are asked to."""

    def __iter__(self):
        yield from range(3)


def errors_with(data, *components, valid_data=None):
    """Return the errors of a training and a test on data, each text once, with the phase."""
    check = Check()
    loop = TrainTestLoop(torch.nn.Identity(), [*components, check], data, valid_data)
    loop.train(n_epochs=1)
    loop.test(data)
    return sorted(set(check.errors))


def loader(**options):
    """Return a loader of six samples."""
    return DataLoader(DATASET, **options)


@pytest.mark.parametrize(
    "data",
    [
        [1, 2, 3],
        (1, 2),
        range(3),
        pytest.param(
            torch.zeros(3, 2), marks=pytest.mark.filterwarnings("ignore:.*_data is a tensor")
        ),
        loader(batch_size=2),
        loader(batch_size=None, sampler=SequentialSampler(DATASET)),
        loader(sampler=SequentialSampler(DATASET)),
        loader(batch_sampler=BatchSampler(SequentialSampler(DATASET), 2, drop_last=False)),
        loader(sampler=Seeded(DATASET), batch_size=4),
        loader(batch_sampler=BatchSampler(Seeded(DATASET), 2, drop_last=False)),
        loader(batch_sampler=SeededBatches(DATASET)),
        loader(sampler=DistributedSampler(DATASET, num_replicas=1, rank=0)),
        WithState(),
    ],
    ids=lambda data: type(data).__name__,
)
def test_data_whose_order_can_be_repeated_are_accepted(data):
    """A fixed order, an order by (seed, epoch), and data with their own state are accepted."""
    assert [] == errors_with(data)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's own
def test_a_loader_with_a_state_of_its_own_is_accepted():
    """A loader of torchdata is accepted, also with a shuffled order or over a stream."""
    assert [] == errors_with(StatefulDataLoader(DATASET, shuffle=True))
    assert [] == errors_with(StatefulDataLoader(StreamDataset()))


SEEDED = (
    "Write DataLoader(dataset, ..., sampler=ttl_core.SeededSampler(dataset)) in place of "
    "shuffle=True, or torchdata's StatefulDataLoader"
)
STATEFUL = "Write torchdata's StatefulDataLoader(...) in place of DataLoader(...)"
OTHER = (
    "Give a list of batches, a DataLoader, or something of your own with state_dict() and "
    "load_state_dict()"
)


@pytest.mark.parametrize(
    ("data", "what", "change"),
    [
        (loader(shuffle=True), "DataLoader whose order a RandomSampler decides", SEEDED),
        (
            loader(shuffle=True, generator=torch.Generator()),
            "DataLoader whose order a RandomSampler decides",
            SEEDED,
        ),
        (
            loader(batch_size=None, sampler=RandomSampler(DATASET)),
            "DataLoader whose order a RandomSampler decides",
            SEEDED,
        ),
        (
            loader(sampler=SubsetRandomSampler([1, 2])),
            "DataLoader whose order a SubsetRandomSampler decides",
            SEEDED,
        ),
        (
            loader(sampler=WeightedRandomSampler([0.5] * 6, 3)),
            "DataLoader whose order a WeightedRandomSampler decides",
            SEEDED,
        ),
        (loader(sampler=[2, 1]), "DataLoader whose order a list decides", SEEDED),
        (
            loader(batch_sampler=OwnBatches(SequentialSampler(DATASET), 2, drop_last=False)),
            "DataLoader whose order a OwnBatches decides",
            SEEDED,
        ),
        (
            loader(batch_sampler=BatchSampler(RandomSampler(DATASET), 2, drop_last=False)),
            "DataLoader whose order a RandomSampler decides",
            SEEDED,
        ),
        (DataLoader(StreamDataset()), "DataLoader over a stream, StreamDataset", STATEFUL),
        (Stream(range(3)), "Stream", OTHER),
        ({1, 2}, "set", OTHER),
        (Generated(), "Generated", OTHER),
    ],
)
def test_data_whose_order_cannot_be_repeated_are_refused(data, what, change):
    """The error says what the data are, and what to write; only training data are checked."""
    expected = (
        f"no run could resume in the middle of an epoch of its data, a {what}: the order of "
        f"its batches cannot be repeated. {change}"
    )
    assert [("train", expected)] == errors_with(data)


def test_validation_data_may_have_any_order():
    """No state is taken inside a validation epoch, so its order need not be repeated."""
    assert [] == errors_with([1, 2], valid_data=loader(shuffle=True))


def test_outside_training_epochs_data_may_have_any_order():
    """Between epochs, and outside a run, a run can resume whatever its data are."""
    loop = TrainTestLoop(torch.nn.Identity(), [], loader(shuffle=True))
    loop.check_resumable()
    loop.train(1)
    loop.check_resumable()


class Replace(LoopComponent):
    """A component that replaces the data of each epoch."""

    def __init__(self, data):
        self.data = data

    def on_epoch_begin(self, loop):
        loop.data = self.data


@pytest.mark.parametrize(
    ("data", "others", "n_errors"), [([1], loader(shuffle=True), 1), (loader(shuffle=True), [1], 0)]
)
def test_the_data_of_the_epoch_are_checked(data, others, n_errors):
    """If a component replaces `loop.data`, the new data are checked."""
    assert n_errors == len(errors_with(data, Replace(others)))


def states_with(data, n_epochs=1):
    """Return the states at the safe points of training on data."""
    recorder = StateRecorder()
    TrainTestLoop(torch.nn.Identity(), [recorder], data).train(n_epochs)
    return recorder.states


def resume(state, data):
    """Resume from a state with data."""
    loop = TrainTestLoop(torch.nn.Identity(), [], data)
    loop.load_state_dict(state)
    loop.train(n_epochs=2)


def test_a_state_inside_an_epoch_of_such_data_is_refused():
    """state_dict() checks it too, at the first safe point."""
    loop = TrainTestLoop(torch.nn.Identity(), [StateRecorder()], loader(shuffle=True))
    with pytest.raises(StateError, match=r"sampler=ttl_core\.SeededSampler\(dataset\)"):
        loop.train(1)


def test_a_state_between_epochs_of_such_data_is_accepted():
    """With one batch an epoch, all safe points are between epochs."""
    states = states_with(loader(shuffle=True, batch_size=6), n_epochs=2)
    assert [None, None] == [state["position"]["epoch"] for state in states]


def position_in(data):
    """Return the first position inside an epoch of data."""
    return states_with(data)[0]["position"]["epoch"]


def test_a_position_has_what_decides_the_order():
    """A position has the number of batches, and seed and epoch if they decide the order."""
    assert {"n_batches": 1, "order": {}} == position_in([1, 2])
    assert {"n_batches": 1, "order": {}} == position_in(loader(batch_size=2))
    seeded = loader(sampler=Seeded(DATASET))
    seeded.sampler.seed, seeded.sampler.epoch = 7, 3
    assert {"n_batches": 1, "order": {"seed": 7, "epoch": 3}} == position_in(seeded)


@pytest.mark.parametrize(
    ("saved_of", "given", "text"),
    [
        (
            [1, 2, 3],
            loader(sampler=Seeded(DATASET)),
            "a DataLoader: its order is not one by (seed, epoch), theirs {'seed': 0, 'epoch': 0}",
        ),
        (
            loader(sampler=Seeded(DATASET)),
            loader(),
            "a DataLoader: its order is {'seed': 0, 'epoch': 0}, theirs is not",
        ),
        (WithState(), [1, 2, 3], "a list"),
        ([1, 2, 3], WithState(), "a WithState"),
    ],
)
def test_data_of_another_kind_are_refused_when_resuming(saved_of, given, text):
    """A state inside an epoch fits only the kind of data with which it was taken."""
    (state, *_) = states_with(saved_of)
    with pytest.raises(StateError) as caught:
        resume(state, given)
    assert text in str(caught.value)
    assert str(caught.value).endswith("Give the data that the state was taken of")


def test_another_seed_is_refused_when_resuming():
    """Another seed is another order, inside an epoch and between epochs."""
    states = states_with(loader(sampler=Seeded(DATASET)))
    for state in (states[0], states[-1]):
        other = loader(sampler=Seeded(DATASET))
        other.sampler.seed = 5
        with pytest.raises(StateError) as caught:
            resume(state, other)
        expected = (
            "the order of the data has seed 5, but the state was taken with seed 0. Give the "
            "sampler that one"
        )
        assert expected == str(caught.value)


def test_data_that_cannot_be_repeated_are_refused_when_resuming():
    """A run cannot resume inside an epoch with data whose order cannot be repeated."""
    (state, *_) = states_with(loader())
    with pytest.raises(StateError, match="whose order a RandomSampler decides"):
        resume(state, loader(shuffle=True))
