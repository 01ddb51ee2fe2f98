"""SeededSampler, SeededSamples and sample_generator: orders and augmentation by seed and epoch."""

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

from ttl_core import ArgumentError, SeededSampler, SeededSamples, sample_generator
from ttl_core.state.sampler import SeededIndex

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
    """The order does not depend on earlier draws and epochs, and has each index once."""
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
def test_orders_differ_between_seeds_and_epochs(n, positions):
    """Another seed, or another epoch, gives another order."""
    assume(len(positions) == len(set(positions)))
    orders = [order(n, *position) for position in positions]
    assert all(one != other for one, other in itertools.combinations(orders, 2))


def test_the_next_epoch_is_not_the_first_of_the_next_seed():
    """The order is not seeded with the sum of seed and epoch, as that of other samplers is."""
    assert order(50, 1, 0) != order(50, 0, 1)


def test_seeds_stay_what_they_are():
    """Later versions resume runs of this one, so the way seeds are mixed must not change."""
    assert 8462395873746552714 == sample_generator(SeededIndex(2, 0, 1)).initial_seed()


def test_leaves_random_numbers_alone():
    """An epoch draws from no global random generator."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    order(10, 0, 0)
    assert torch.equal(before, torch.get_rng_state())


def test_each_iteration_is_the_next_epoch():
    """The sampler counts its epochs."""
    sampler = SeededSampler(range(30), 5)
    assert [order(30, 5, epoch) for epoch in range(3)] == [list(sampler) for _ in range(3)]
    assert 3 == sampler.epoch


def test_an_iterator_that_is_not_used_is_no_epoch():
    """An epoch begins with its first index: a DataLoader makes iterators that it does not use."""
    sampler = SeededSampler(range(5))
    iter(sampler)
    assert 0 == sampler.epoch


def test_without_shuffling_indices_are_in_order():
    """The indices still have seed and epoch, as for random augmentation of validation data."""
    indices = order(4, 7, 2, shuffle=False)
    assert [0, 1, 2, 3] == indices
    assert {(7, 2)} == {(index.seed, index.epoch) for index in indices}


def test_a_sampler_has_the_length_of_the_dataset():
    """len() of a sampler is that of its dataset, which a DataLoader needs."""
    assert 4 == len(SeededSampler([1, 2, 3, 4]))


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None], ids=repr)
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    """The error has the value and what is expected."""
    with pytest.raises(ArgumentError) as caught:
        SeededSampler([1], seed)
    assert f"seed is {seed!r}, but has to be a whole number from 0" == str(caught.value)


def test_a_seed_of_64_bits_is_refused():
    """A seed has to fit into 63 bits."""
    with pytest.raises(ArgumentError, match="but has to be below 2"):
        SeededSampler([1], 2**63)


def test_a_dataset_without_a_length_is_refused():
    """A stream cannot be shuffled."""
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
    """An index that was pickled or copied still has its seed and its epoch."""
    index = copied(SeededIndex(3, 5, 7))
    assert (SeededIndex, 3, 5, 7) == (type(index), index, index.seed, index.epoch)


def test_an_index_is_a_number():
    """A dataset can use an index like any other int."""
    index = SeededIndex(1, 5, 7)
    assert "b" == "abc"[index]
    assert {1: 2}[index] == 2
    assert 2.0 == torch.arange(3.0)[index + 1]


# -- generators -----------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), seeds, epochs), min_size=2, max_size=5, unique=True))
def test_a_generator_is_a_function_of_seed_epoch_and_index(positions):
    """The same sample gets the same numbers, and another sample gets others."""
    draws = [draw(*position) for position in positions]
    assert draws == [draw(*position) for position in positions]
    assert len(positions) == len(set(draws))


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
    """Samples that draw from each global random generator."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index, random.random(), numpy.random.rand(), torch.rand(()).item()


class WithGenerator(Augmented):
    """Samples that draw from their own generator."""

    def __getitem__(self, index):
        return int(index), torch.rand((), generator=sample_generator(index)).item()


def samples(dataset, n_workers=0, n_epochs=2):
    """Return the samples of some epochs of a loader, as tuples, by epoch."""
    sampler = SeededSampler(dataset, 3)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=n_workers)
    return [[tuple(sample) for sample in loader] for _ in range(n_epochs)]


@pytest.mark.parametrize("dataset", [SeededSamples(Augmented()), WithGenerator()])
def test_samples_are_the_same_wherever_they_are_loaded(dataset):
    """Augmentation draws the same numbers with and without workers, and after any other draws."""
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
def test_samples_differ_between_epochs(dataset):
    """The same sample is augmented in another way in the next epoch."""
    first, second = ({index: rest for index, *rest in epoch} for epoch in samples(dataset))
    assert first.keys() == second.keys()
    assert all(first[index] != second[index] for index in first)
    assert 6 == len({tuple(rest) for rest in first.values()})


def test_samples_of_a_plain_dataset_differ_each_time():
    """The tests above fail with a dataset that is not wrapped."""
    random.seed(0)
    torch.manual_seed(0)
    first = samples(Augmented())
    assert first != samples(Augmented())


def generator_states():
    """Return the states of the global random generators, to be compared."""
    state = numpy.random.get_state()
    return random.getstate(), state[1].tolist(), state[2:], torch.get_rng_state().tolist()


def test_samples_leave_random_numbers_alone():
    """Afterwards the global generators have their earlier state, also if a dataset fails."""

    class Failing(Augmented):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise OSError

    before = generator_states()
    SeededSamples(Augmented())[SeededIndex(0, 1, 2)]
    with pytest.raises(OSError):  # noqa: PT011  (it says nothing)
        SeededSamples(Failing())[SeededIndex(0, 1, 2)]
    assert before == generator_states()


def test_a_wrapped_dataset_gets_plain_indices():
    """The index that a wrapped dataset gets is of type int."""

    class Types(Augmented):
        def __getitem__(self, index):
            return type(index)

    assert int is SeededSamples(Types())[SeededIndex(0, 1, 2)]


def test_samples_need_a_seeded_sampler():
    """With another sampler, the error says what to write."""
    data = SeededSamples(Augmented())
    assert 6 == len(data)
    with pytest.raises(TypeError, match="not sampled by a SeededSampler"):
        next(iter(DataLoader(data)))


def test_a_batch_sampler_keeps_the_order():
    """The indices of a BatchSampler have seed and epoch."""
    data = SeededSamples(Augmented())
    batches = BatchSampler(SeededSampler(data, 3), 4, drop_last=False)
    loader = DataLoader(data, batch_sampler=batches)
    found = [index for indices, *_ in loader for index in indices.tolist()]
    assert order(6, 3, 0) == found
