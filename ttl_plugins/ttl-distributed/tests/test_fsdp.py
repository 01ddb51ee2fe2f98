"""Training of a model that is shared out to processes, against training in one."""

import group_cases
import pytest
from group_equality import check_same, facts_alone
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
