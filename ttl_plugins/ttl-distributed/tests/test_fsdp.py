"""Training of a model that is shared out to processes, against training in one."""

import group_cases
import pytest
from group_equality import check_same, facts_alone, flat, forget_the_stop
from process_groups import in_group

LAYERS = {"layers": "Linear"}


def under_fsdp(size, function, *arguments, **options):
    """Return what a function returns in each process of a group, with fsdp in place of ddp."""
    return in_group(size, group_cases.under, {**LAYERS, **options}, function, *arguments)


@pytest.mark.parametrize("name", group_cases.CASES)
def test_two_processes_come_to_the_same_as_one(name):
    """Steps, metrics and weights are those of one process, with every first-party component."""
    tolerance = 0.02 if name == "amp" else 2e-6
    check_same(facts_alone(name), under_fsdp(2, group_cases.train, name), tolerance)


# -- checkpoints ----------------------------------------------------------------------------


def saved(parallel, size, directory, **options):
    """Return what a training with checkpoints comes to in each process."""
    options = {"noise": False, "rich": True, **options}
    if size == 1:
        return [group_cases.saved(directory, **options)]
    function = group_cases.saved_with
    return in_group(size, group_cases.under, parallel, function, directory, options)


def test_a_group_resumes_to_the_same_bits(tmp_path):
    """With the part that each process had of the model, the optimizer and the averages."""
    options = {"every": 3, "noise": True, "own": True}
    whole = saved(LAYERS, 2, tmp_path / "whole", **options)
    stop = (1, "on_batch_begin", 1)
    stopped = saved(LAYERS, 2, tmp_path / "parts", stop=stop, **options)
    assert [True, True] == [facts["stopped"] for facts in stopped]
    forget_the_stop(tmp_path / "parts")
    resumed = saved(LAYERS, 2, tmp_path / "parts", **options)
    for before, after in zip(whole, resumed, strict=True):
        for name in ("weights", "metrics", "draw", "own", "optimizer", "averages", "rate"):
            assert before[name] == after[name]


CHAINS = {
    "fewer and more": [(None, 1), (LAYERS, 2), (LAYERS, 4), (None, 1)],
    "from ddp": [("ddp", 2), (LAYERS, 2), ("ddp", 2)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_another_number_of_processes_resumes(tmp_path, name):
    """Or with another component, on the same samples, to the same state up to rounding."""
    options = {"every": 3, "metrics": False}
    [whole] = saved(None, 1, tmp_path / "whole", **options)
    for i, (parallel, size) in enumerate(CHAINS[name]):
        is_last = i + 1 == len(CHAINS[name])
        stop = None if is_last else (0, "on_batch_begin", 1, i)
        found = saved(parallel, size, tmp_path / "parts", stop=stop, **options)
        assert [None] * size == [facts["error"] for facts in found]
        if not is_last:
            forget_the_stop(tmp_path / "parts")
    for facts in found:
        assert (whole["steps"], whole["rate"]) == (facts["steps"], facts["rate"])
        for part in ("weights", "averages", "optimizer"):
            assert pytest.approx(flat(whole[part]), rel=1e-5, abs=1e-6) == flat(facts[part])
