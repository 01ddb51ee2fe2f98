"""loop.check_resumable(): of which data an epoch can be gone on with, and what to write if not."""

from __future__ import annotations

import pytest
import torch
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
    """Give an order that is a function of (seed, epoch)."""

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
    """Give batches in such an order."""

    def __iter__(self):
        return iter([[0, 1], [2, 3]])


class OwnBatches(BatchSampler):
    """Give batches in an order of one's own."""


class Stream(IterableDataset):
    """Give samples without a length."""

    def __iter__(self):
        return iter(torch.arange(6.0))


class WithState:
    """Be data that know themselves where they stand."""

    def __iter__(self):
        return iter(range(3))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Numbers:
    """Be iterable and nothing else."""

    def __iter__(self):
        return iter(range(3))


class Check(LoopComponent):
    """Ask in each batch whether a run could go on from there."""

    def __init__(self):
        self.errors = []

    def on_batch_end(self, loop):
        try:
            loop.check_resumable()
        except StateError as error:
            self.errors.append((loop.epoch_desc, str(error)))


def errors_with(data, *components, valid_data=None):
    """Return the errors in training on data, each text once, with the phase."""
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
        torch.zeros(3, 2),
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
    """What has a fixed order, one by (seed, epoch), or a state of its own, can be gone on with."""
    assert [] == errors_with(data)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's own
def test_a_loader_with_a_state_of_its_own_is_accepted():
    """A loader of torchdata is asked for its state, also of a shuffled order or of a stream."""
    assert [] == errors_with(StatefulDataLoader(DATASET, shuffle=True))
    assert [] == errors_with(StatefulDataLoader(Stream()))


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
        (DataLoader(Stream()), "DataLoader over a stream, Stream", STATEFUL),
        (Numbers(), "Numbers", OTHER),
        ({1: 2}, "dict", OTHER),
        ({1, 2}, "set", OTHER),
        ((number for number in range(3)), "generator", OTHER),
    ],
)
def test_data_whose_order_nothing_repeats_are_refused(data, what, change):
    """The error says what the data are, and which line to change and how; validation is free."""
    expected = (
        f"no run could go on in the middle of an epoch of its data, a {what}: nothing repeats the "
        f"order of their batches. {change}"
    )
    assert [("train", expected)] == errors_with(data)


def test_the_order_of_validation_data_is_free():
    """No state is taken inside a validation epoch, so its order need not be repeated."""
    assert [] == errors_with([1, 2], valid_data=loader(shuffle=True))


def test_outside_training_epochs_every_order_is_fine():
    """Between epochs, and outside a run, a run can go on whatever its data are."""
    loop = TrainTestLoop(torch.nn.Identity(), [], loader(shuffle=True))
    loop.check_resumable()
    loop.train(1)
    loop.check_resumable()


class Replace(LoopComponent):
    """Put other data in place of those of an epoch."""

    def __init__(self, data):
        self.data = data

    def on_epoch_begin(self, loop):
        loop.data = self.data


@pytest.mark.parametrize(
    ("data", "others", "n_errors"), [([1], loader(shuffle=True), 1), (loader(shuffle=True), [1], 0)]
)
def test_what_is_gone_through_counts(data, others, n_errors):
    """Where a component replaces `loop.data`, those are looked at."""
    assert n_errors == len(errors_with(data, Replace(others)))


class Save(LoopComponent):
    """Take a state at each safe point."""

    def __init__(self):
        self.states = []

    def on_safe_point(self, loop):
        self.states.append(loop.state_dict())


def states_with(data, n_epochs=1):
    """Return the states at the safe points of training on data."""
    save = Save()
    TrainTestLoop(torch.nn.Identity(), [save], data).train(n_epochs)
    return save.states


def go_on(state, data):
    """Train on data from a state."""
    loop = TrainTestLoop(torch.nn.Identity(), [], data)
    loop.load_state_dict(state)
    loop.train(n_epochs=2)


def test_a_state_inside_an_epoch_of_such_data_is_refused():
    """state_dict() checks it too, at the first safe point."""
    loop = TrainTestLoop(torch.nn.Identity(), [Save()], loader(shuffle=True))
    with pytest.raises(StateError, match=r"sampler=ttl_core\.SeededSampler\(dataset\)"):
        loop.train(1)


def test_a_state_between_epochs_of_such_data_is_fine():
    """With one batch an epoch, all safe points lie between epochs."""
    states = states_with(loader(shuffle=True, batch_size=6), n_epochs=2)
    assert [None, None] == [state["position"]["epoch"] for state in states]


def position_in(data):
    """Return the first position inside an epoch of data."""
    return states_with(data)[0]["position"]["epoch"]


def test_a_position_has_from_what_the_order_follows():
    """It notes the batches that were consumed, and seed and epoch where they decide the order."""
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
def test_data_of_another_kind_are_refused_when_going_on(saved_of, given, text):
    """A state inside an epoch fits the kind of data that it was taken of, and the error says so."""
    (state, *_) = states_with(saved_of)
    with pytest.raises(StateError) as caught:
        go_on(state, given)
    assert text in str(caught.value)
    assert str(caught.value).endswith("Give the data that the state was taken of")


def test_another_seed_is_refused_when_going_on():
    """An order of another seed is another order, inside an epoch and between epochs."""
    states = states_with(loader(sampler=Seeded(DATASET)))
    for state in (states[0], states[-1]):
        other = loader(sampler=Seeded(DATASET))
        other.sampler.seed = 5
        with pytest.raises(StateError) as caught:
            go_on(state, other)
        expected = (
            "the order of the data has seed 5, but the state was taken with seed 0. Give the "
            "sampler that one"
        )
        assert expected == str(caught.value)


def test_data_that_cannot_be_repeated_are_refused_when_going_on():
    """Inside an epoch there is no going on with data whose order nothing repeats."""
    (state, *_) = states_with(loader())
    with pytest.raises(StateError, match="whose order a RandomSampler decides"):
        go_on(state, loader(shuffle=True))
