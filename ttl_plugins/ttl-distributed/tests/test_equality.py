"""Training in several processes, against training in one."""

import itertools

import group_cases
import group_data
import pytest
from group_equality import check_same, facts_alone
from process_groups import in_group

NAMES = [*group_cases.CASES, *group_cases.DDP_CASES]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_come_to_the_same_as_one(name):
    """Steps, gradients, metrics and weights, with every first-party component."""
    tolerance = 0.02 if name == "amp" else 2e-6
    check_same(facts_alone(name), in_group(2, group_cases.train, name), tolerance)


def test_four_processes_come_to_the_same_as_one():
    """Also where some have no sample of the last batch."""
    names = ["alone", "a part of no sample", "accumulation with weights", "all"]
    several = in_group(4, group_cases.train_all, names)
    for name in names:
        check_same(facts_alone(name), [facts[name] for facts in several], 2e-6)


@pytest.mark.parametrize("name", ["uneven parts", "weights by tokens", "sam"])
def test_the_mean_of_the_means_of_processes_is_another_gradient(name):
    """The test above tells the difference."""
    several = in_group(2, group_cases.train_unweighted, name)
    with pytest.raises(AssertionError):
        check_same(facts_alone(name), several, 2e-6)


def test_throughput_counts_the_samples_of_all_processes():
    """Each once, also where a process has none of the last batch."""
    alone = group_data.rates(19)
    assert [[6, 18], [3.5, 10.5]] * 2 == alone
    for seen in in_group(2, group_data.rates, 19):
        assert alone == seen


@pytest.mark.parametrize(("n", "batch_size"), [(24, 6), (19, 6), (9, 4)])
def test_processes_see_the_samples_of_one(n, batch_size):
    """Each global batch has the same samples on any number of processes, each once."""
    alone = [sorted(batch) for batch in group_data.batches_seen(n, batch_size)]
    for size in (2, 4):
        several = in_group(size, group_data.batches_seen, n, batch_size)
        together = [sorted(itertools.chain(*parts)) for parts in zip(*several, strict=True)]
        assert alone == together
