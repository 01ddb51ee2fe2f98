"""Techniques in several processes, against one: what is equal, what differs, what is refused."""

import functools

import group_callbacks
import group_loops
import group_techniques
import pytest
import torch
from group_equality import check_same, flat
from process_groups import in_group

PARALLEL = {"ddp": "ddp", "fsdp": {"layers": "Linear"}}
both = pytest.mark.parametrize("parallel", PARALLEL)


def under(parallel, function, *arguments):
    """Return what a function returns in each of two processes."""
    return in_group(2, group_loops.under, PARALLEL[parallel], function, *arguments)


@functools.cache
def alone(name):
    """Return the facts of a case in one process, computed once."""
    return group_techniques.train(name)


# -- the same numbers -------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", group_techniques.EQUAL)
def test_two_processes_come_to_the_same_as_one(parallel, name):
    """Mixtures are those within the parts that processes have of a batch."""
    check_same(alone(name), under(parallel, group_techniques.train, name), 2e-6)


@pytest.mark.parametrize("name", group_techniques.WHOLE)
def test_two_processes_with_whole_models_come_to_the_same_as_one(name):
    """Where the processes have parts of the model it is refused."""
    check_same(alone(name), under("ddp", group_techniques.train, name), 2e-6)


@both
def test_a_compiled_model_comes_to_the_same_and_is_compiled_once(parallel):
    """The model itself, not what averages its gradients."""
    several = under(parallel, group_techniques.compiled)
    assert [1, 1] == [n_graphs for n_graphs, _ in several]
    check_same(group_techniques.uncompiled(), [facts for _, facts in several], 2e-6)


# -- what differs -----------------------------------------------------------------------------


def test_a_batch_has_one_share_in_all_processes_and_an_order_in_each():
    """As the share of a batch is one in one process."""
    first, second = in_group(2, group_techniques.mixtures)
    assert first[0] == second[0]
    assert 8 == len(set(first[0]))
    assert first[1] != second[1]
    assert [sorted(order) for order in first[1]] == [sorted(order) for order in second[1]]


@both
def test_averaged_weights_have_the_same_statistics_in_all_processes(parallel):
    """The means of those that each has of its part of the data."""
    first, second = under(parallel, group_techniques.averaged_statistics)
    assert first == second


# -- what is refused --------------------------------------------------------------------------

WITH_FSDP = {
    "a container": "Give a module that calls those in it, or train with ddp",
    "alternating": "Train with ddp in place of fsdp",
    "Adafactor": "Use another optimizer, such as AdamW, or train with ddp",
    "Rprop": "Use another optimizer, such as AdamW, or train with ddp",
    "LBFGS": "Use another optimizer, such as AdamW, or train with ddp",
    "Muon": "Use another optimizer, such as AdamW, or train with ddp",
    "lr-finder": "in one process, or with ddp in place of fsdp",
    "forks": "in one process, or with ddp in place of fsdp",
}
IN_GROUPS = {
    "batch-size-finder": "Find the size in one, and give it to the DataLoader",
    "batch-schedule": "samples[0]=1, which all 2 processes share",
}
CASES = [("fsdp", name) for name in [*WITH_FSDP, *IN_GROUPS] if name in group_techniques.REFUSED]
CASES += [("ddp", name) for name in IN_GROUPS]


@pytest.mark.parametrize(("parallel", "name"), CASES)
def test_what_cannot_work_is_refused_before_training(parallel, name):
    """In all processes, with what to do instead."""
    for text, n_steps in under(parallel, group_techniques.refused, name):
        assert {**WITH_FSDP, **IN_GROUPS}[name] in text
        assert 0 == n_steps


def test_layers_without_biases_are_no_tied_ones():
    """What they have in common is None."""
    for names in under("fsdp", group_techniques.layers_of_matrices):
        assert 3 == names.count("FSDPLinear")


# -- forks ------------------------------------------------------------------------------------


def test_a_fork_loses_no_request_to_stop():
    """Of one process, made before it, at which the run ends as without it."""
    first, second = in_group(2, group_techniques.stopped_before_a_fork)
    assert first == second
    assert first[0]
    assert first[2] <= 3


# -- callbacks of other libraries -------------------------------------------------------------


@both
@pytest.mark.parametrize("name", group_callbacks.CALLBACKS)
def test_a_callback_is_called_in_each_process_and_told_the_same(parallel, name):
    """What it is told of an epoch is that of all samples, as in one process."""
    events, facts = group_callbacks.told(name)
    several = under(parallel, group_callbacks.told, name)
    for told, found in several:
        assert pytest.approx(numbers(events), rel=2e-6, abs=2e-6) == numbers(told)
        assert pytest.approx(flat(facts["weights"]), abs=2e-6) == flat(found["weights"])
    assert several[0] == several[1]


def numbers(events):
    """Return the numbers in events."""
    return [float(number) for _, *several in events for number in several]


def test_all_validate_where_the_callback_of_one_process_asks_for_it():
    """At the next safe point at which all know of it, which is one step later."""
    first, second = in_group(2, group_callbacks.evaluated_by_one)
    assert first == second
    assert [3, 4, 8] == [event[1] for event in first[0] if event[0] == "evaluate"]


@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end"])
def test_a_validation_that_the_callback_of_one_process_asks_for_takes_data(event):
    """Without any it is an error in all processes, also at the end of an epoch."""
    errors = in_group(2, group_callbacks.evaluated_without_data, event)
    assert ["valid_data is None, so there is nothing to iterate over"] * 2 == errors


def test_all_stop_where_the_callback_of_one_process_asks_for_it():
    """At the same safe point."""
    first, second = in_group(2, group_callbacks.stopped_by_one)
    assert first == second
    assert (True, True) == (first[1]["stopped"], first[1]["steps"] in (2, 3, 4))


def test_a_callback_of_keras_may_be_called_in_the_main_process_alone():
    """As one should be that writes files."""
    assert [4, 0] == in_group(2, group_callbacks.main_only)


@both
def test_a_callback_of_lightning_saves_whole_weights(parallel, tmp_path):
    """Also where each process has parts of them."""
    first, _ = under(parallel, group_callbacks.lightning_checkpoints, tmp_path)
    content = torch.load(tmp_path / "0.ckpt", weights_only=True)
    assert first == {name: value.tolist() for name, value in content["state_dict"].items()}
