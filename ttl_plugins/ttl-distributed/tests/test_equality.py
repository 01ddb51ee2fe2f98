"""Training in several processes, against training in one."""

import itertools

import group_cases
import pytest
from process_groups import in_group

NAMES = [*group_cases.CASES]


@pytest.fixture(scope="module")
def alone():
    """The facts of each case in one process, computed when they are asked for."""
    found = {}

    def facts(name):
        if name not in found:
            found[name] = group_cases.train(name)
        return found[name]

    return facts


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_come_to_the_same_as_one(name, alone):
    """Steps, gradients, metrics and weights, with every first-party component."""
    tolerance = 0.02 if name == "amp" else 2e-6
    check_same(alone(name), in_group(2, group_cases.train, name), tolerance)


def test_four_processes_come_to_the_same_as_one(alone):
    """Also where some have no sample of the last batch."""
    names = ["alone", "a part of no sample", "accumulation with weights", "all"]
    several = in_group(4, group_cases.train_all, names)
    for name in names:
        check_same(alone(name), [facts[name] for facts in several], 2e-6)


@pytest.mark.parametrize("name", ["uneven parts", "weights by tokens", "sam"])
def test_the_mean_of_the_means_of_processes_is_another_gradient(name, alone):
    """The test above tells the difference."""
    several = in_group(2, group_cases.train_unweighted, name)
    with pytest.raises(AssertionError):
        check_same(alone(name), several, 2e-6)


def check_same(alone, several, tolerance):
    """Check the facts of each process against those of one process."""
    for facts in several:
        assert alone["steps"] == facts["steps"]
        assert (alone["epochs"], alone["stopped"]) == (facts["epochs"], facts["stopped"])
        assert len(alone["gradients"]) == len(facts["gradients"])
        for expected, actual in zip(alone["gradients"], facts["gradients"], strict=True):
            assert pytest.approx(expected, rel=tolerance / 2, abs=tolerance / 2) == actual
        assert pytest.approx(alone["metrics"], rel=tolerance, abs=tolerance) == facts["metrics"]
        for name, value in alone["weights"].items():
            assert pytest.approx(flat(value), rel=tolerance, abs=tolerance) == flat(
                facts["weights"][name]
            )
    for facts in several[1:]:  # to the bit
        assert several[0] == facts


def test_throughput_counts_the_samples_of_all_processes():
    """Each once, also where a process has none of the last batch."""
    alone = group_cases.rates(19)
    assert [[6, 18], [3.5, 10.5]] * 2 == alone
    for seen in in_group(2, group_cases.rates, 19):
        assert alone == seen


def flat(value):
    """Return the numbers in nested lists."""
    return [each for one in value for each in flat(one)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(("n", "batch_size"), [(24, 6), (19, 6), (9, 4)])
def test_processes_see_the_samples_of_one(n, batch_size):
    """Each global batch has the same samples on any number of processes, each once."""
    alone = [sorted(batch) for batch in group_cases.batches_seen(n, batch_size)]
    for size in (2, 4):
        several = in_group(size, group_cases.batches_seen, n, batch_size)
        together = [sorted(itertools.chain(*parts)) for parts in zip(*several, strict=True)]
        assert alone == together
