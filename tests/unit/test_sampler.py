"""What SeededSampler, SeededSamples and sample_generator do."""

import copy
import itertools
import pickle
import random

import numpy
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, Dataset
from ttl_core.sampler import SeededIndex

from ttl_core import ArgumentError, SeededSampler, SeededSamples, sample_generator

seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 1000)


def order(n, seed, epoch, **options):
    """Return the order of one epoch of a new sampler."""
    sampler = SeededSampler(range(n), seed, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


# -- orders ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 200), seeds, epochs)
def test_an_order_is_a_function_of_seed_and_epoch(n, seed, epoch):
    """Whatever was drawn or iterated over before, it is the same, and has each index once."""
    torch.manual_seed(epoch)
    first = order(n, seed, epoch)
    sampler = SeededSampler(range(n), seed)
    for _ in range(3):
        next(iter(sampler), None)
    torch.manual_seed(epoch + 1)
    sampler.set_epoch(epoch)
    assert first == list(sampler)
    assert list(range(n)) == sorted(first)


@settings(deadline=None)
@given(st.integers(20, 100), st.lists(st.tuples(seeds, epochs), min_size=2, max_size=4))
def test_orders_differ_between_seeds_and_epochs(n, places):
    """Another seed or another epoch is another order."""
    assume(len(places) == len(set(places)))
    orders = [order(n, *place) for place in places]
    assert all(one != other for one, other in itertools.combinations(orders, 2))


def test_the_next_epoch_is_not_the_first_of_the_next_seed():
    """Seed and epoch are not added up, as samplers do that seed with their sum."""
    assert order(50, 1, 0) != order(50, 0, 1)


def test_seeds_stay_what_they_are():
    """Runs of today are gone on with by tomorrow's version: how seeds are mixed is a promise."""
    assert 8462395873746552714 == sample_generator(SeededIndex(2, 0, 1)).initial_seed()


def test_leaves_random_numbers_alone():
    """An epoch draws from no global stream."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order(10, 0, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_each_iteration_is_the_next_epoch():
    """Nobody has to count epochs."""
    sampler = SeededSampler(range(30), 5)
    assert [order(30, 5, epoch) for epoch in range(3)] == [list(sampler) for _ in range(3)]
    assert 3 == sampler.epoch


def test_an_iterator_that_is_not_used_is_no_epoch():
    """An epoch begins when its first index is asked for: a DataLoader makes iterators to spare."""
    sampler = SeededSampler(range(5))
    iter(sampler)
    assert 0 == sampler.epoch


def test_without_shuffling_indices_are_in_order():
    """They still know seed and epoch, for random augmentation of validation data, say."""
    indices = order(4, 7, 2, shuffle=False)
    assert [0, 1, 2, 3] == indices
    assert {(7, 2)} == {(index.seed, index.epoch) for index in indices}


def test_a_sampler_has_the_length_of_the_dataset():
    """A DataLoader asks for it."""
    assert 4 == len(SeededSampler([1, 2, 3, 4]))


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None], ids=repr)
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    """The error has the value and what is expected."""
    with pytest.raises(ArgumentError) as caught:
        SeededSampler([1], seed)
    assert f"seed is {seed!r}, but has to be a whole number from 0" == str(caught.value)


def test_a_seed_of_64_bits_is_refused():
    """Generators take 63 bits without a sign."""
    with pytest.raises(ArgumentError, match="but has to be below 2"):
        SeededSampler([1], 2**63)


def test_a_dataset_without_a_length_is_refused():
    """A stream has nothing to shuffle."""
    with pytest.raises(TypeError, match="which has no length to shuffle"):
        SeededSampler(iter([1, 2]))


# -- indices --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy]
    + [
        lambda index, protocol=protocol: pickle.loads(pickle.dumps(index, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ],
)
def test_an_index_is_the_same_in_another_process(copied):
    """Pickled and copied it knows its seed and its epoch."""
    index = copied(SeededIndex(3, 5, 7))
    assert (SeededIndex, 3, 5, 7) == (type(index), index, index.seed, index.epoch)


def test_an_index_is_a_number():
    """A dataset need not know what it is."""
    index = SeededIndex(1, 5, 7)
    assert "b" == "abc"[index]
    assert {1: 2}[index] == 2
    assert 2.0 == torch.arange(3.0)[index + 1]


# -- generators -----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), seeds, epochs), min_size=2, max_size=5, unique=True))
def test_a_generator_is_a_function_of_seed_epoch_and_index(places):
    """It draws the same numbers for the same sample, and others for another one."""
    draws = [draw(*place) for place in places]
    assert draws == [draw(*place) for place in places]
    assert len(places) == len(set(draws))


def draw(index, seed, epoch):
    """Return what the generator of a sample draws first."""
    generator = sample_generator(SeededIndex(index, seed, epoch))
    return tuple(torch.rand(2, generator=generator, dtype=torch.float64).tolist())


def test_an_index_of_another_sampler_is_refused():
    """The error says what to write."""
    with pytest.raises(TypeError) as caught:
        sample_generator(3)
    expected = (
        "3 is a int, which knows no seed: this dataset is not sampled by a SeededSampler. Write "
        "DataLoader(dataset, ..., sampler=SeededSampler(dataset))"
    )
    assert expected == str(caught.value)


# -- samples --------------------------------------------------------------------------------


class Augmented(Dataset):
    """Draw from each global stream for each sample."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index, random.random(), numpy.random.rand(), torch.rand(()).item()


class WithGenerator(Augmented):
    """Draw from the generator of the sample."""

    def __getitem__(self, index):
        return int(index), torch.rand((), generator=sample_generator(index)).item()


def samples(dataset, n_workers=0, n_epochs=2):
    """Return the samples of some epochs of a loader, as tuples, by epoch."""
    sampler = SeededSampler(dataset, 3)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=n_workers)
    return [[tuple(sample) for sample in loader] for _ in range(n_epochs)]


@pytest.mark.parametrize("dataset", [SeededSamples(Augmented()), WithGenerator()])
def test_samples_are_the_same_wherever_they_are_loaded(dataset):
    """With workers or without, and whatever was drawn before, augmentation draws the same."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    here = samples(dataset)
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    assert here == samples(dataset)
    assert here == samples(dataset, n_workers=2)


@pytest.mark.parametrize("dataset", [SeededSamples(Augmented()), WithGenerator()])
def test_samples_are_drawn_anew_in_each_epoch(dataset):
    """The same sample is augmented in another way in the next epoch."""
    first, second = ({index: rest for index, *rest in epoch} for epoch in samples(dataset))
    assert first.keys() == second.keys()
    assert all(first[index] != second[index] for index in first)
    assert 6 == len({tuple(rest) for rest in first.values()})


def test_plain_augmentation_is_another_one_each_time():
    """The tests above fail against a dataset that is not wrapped."""
    random.seed(0)
    torch.manual_seed(0)
    first = samples(Augmented())
    assert first != samples(Augmented())


def streams():
    """Return the states of the global random streams, to be compared."""
    state = numpy.random.get_state()
    return random.getstate(), state[1].tolist(), state[2:], torch.get_rng_state().tolist()


def test_samples_leave_random_numbers_alone():
    """Afterwards the global streams are where they were, also if a dataset fails."""

    class Failing(Augmented):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise OSError

    before = streams()
    SeededSamples(Augmented())[SeededIndex(0, 1, 2)]
    with pytest.raises(OSError):  # noqa: PT011  (it says nothing)
        SeededSamples(Failing())[SeededIndex(0, 1, 2)]
    assert before == streams()


def test_a_dataset_is_asked_for_plain_indices():
    """What is wrapped need not know of seeds: it gets an int, and nothing else."""

    class Types(Augmented):
        def __getitem__(self, index):
            return type(index)

    assert int is SeededSamples(Types())[SeededIndex(0, 1, 2)]


def test_samples_need_a_seeded_sampler():
    """Loaded in another order, they say what to write."""
    data = SeededSamples(Augmented())
    assert 6 == len(data)
    with pytest.raises(TypeError, match="not sampled by a SeededSampler"):
        next(iter(DataLoader(data)))


def test_batches_are_of_the_order():
    """A BatchSampler of one keeps seed and epoch in its indices."""
    data = SeededSamples(Augmented())
    batches = BatchSampler(SeededSampler(data, 3), 4, drop_last=False)
    loader = DataLoader(data, batch_sampler=batches)
    found = [index for indices, *_ in loader for index in indices.tolist()]
    assert order(6, 3, 0) == found
