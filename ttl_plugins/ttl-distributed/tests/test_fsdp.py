"""Training of a model that is shared out to processes, against training in one."""

import group_cases
import group_checkpoints
import group_data
import group_errors
import group_loops
import group_stops
import group_values
import pytest
import torch
from group_equality import check_same, facts_alone, flat, forget_the_stop
from process_groups import in_group
from ttl_distributed import Fsdp, sharding

from ttl_core import ArgumentError, ConflictError, TrainTestLoop
from ttl_core.testing import Step, tiny_data, tiny_model

LAYERS = {"layers": "Linear"}


def under_fsdp(size, function, *arguments, **options):
    """Return what a function returns in each process of a group, with fsdp in place of ddp."""
    return in_group(size, group_loops.under, {**LAYERS, **options}, function, *arguments)


class Plain(torch.optim.SGD):
    """An optimizer whose step takes no function that computes the loss."""

    def step(self):
        super().step()


def test_an_optimizer_is_tried_as_it_is_stepped(monkeypatch):
    """Without a function that computes the loss, where it needs none."""
    monkeypatch.setattr(sharding, "is_sharded", lambda _: True)
    sharding.check_can_step(Plain([torch.ones(2, requires_grad=True)], lr=0.1))


@pytest.mark.parametrize("name", [*group_cases.CASES, *group_cases.MORE_CASES])
def test_two_processes_come_to_the_same_as_one(name):
    """Steps, metrics and weights are those of one process, with every first-party component."""
    tolerance = 0.02 if name == "amp" else 2e-6
    check_same(facts_alone(name), under_fsdp(2, group_cases.train, name), tolerance)


@pytest.mark.parametrize(
    ("phase", "n", "rank", "batch_num"),
    [("test", 40, 1, 3), ("predict", 40, 0, 3), ("list", 7, 0, 3), ("list", 7, 1, 2)],
)
def test_a_stop_ends_an_evaluation_in_all_processes(phase, n, rank, batch_num):
    """Also where one has no batch left, and computes forward passes for the other."""
    arguments = phase, rank, "on_batch_end", batch_num, n
    several = under_fsdp(2, group_stops.evaluation_stopped, *arguments)
    for n_batches, ended, is_stopped, reason in several:
        assert n_batches <= batch_num + 2
        assert (["test"] * (phase != "predict"), True, "due") == (ended, is_stopped, reason)


# -- alone ----------------------------------------------------------------------------------


def test_alone_no_hook_of_it_is_called():
    """Without torchrun the name in the list costs nothing."""
    loop = TrainTestLoop(tiny_model(), [Step(), "fsdp"], tiny_data())
    loop.train(1)
    assert 1 == loop.group.size
    assert "fsdp" not in loop.explain()


@pytest.mark.parametrize("names", [["ddp", "fsdp"], ["fsdp", "ddp"]])
def test_it_conflicts_with_ddp(names):
    """In either order."""
    with pytest.raises(ConflictError):
        TrainTestLoop(tiny_model(), [Step(), *names], tiny_data())


WRONG = {
    "layers": [0, ["Linear", 3], torch.nn.Linear, 1.5],
    "mixed_precision": ["bf8", torch.bfloat16],
    "mesh_shape": [2, (2,), (0, 2)],
    "reshard_after_forward": ["yes", -1],
    "cpu_offload": [1],
    "reduce_each_batch": ["no"],
    "timeout": [0],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in WRONG for v in WRONG[n]])
def test_arguments_that_cannot_work_are_refused(name, value):
    """When the component is made."""
    with pytest.raises(ArgumentError, match=name):
        Fsdp(**{name: value})


# -- the model ------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [None, "Linear", 10, 10**6])
def test_each_process_has_a_part_of_the_model(layers):
    """Whose keys stay what they were."""
    found = under_fsdp(2, group_values.keys_and_parameters, layers=layers)
    assert [True, True] == [is_same for is_same, _ in found]
    # of the last layer, which has one row, the second process has nothing
    assert [12 + 4 + 8 + 1, 12 + 4] == [n_here for _, n_here in found]


OPTIONS = {
    "replicas": {"mesh_shape": (2, 2)},
    "layers stay gathered": {"reshard_after_forward": False},
    "all layers are freed": {"reshard_after_forward": True},
    "kept on the CPU": {"cpu_offload": True},
    "each batch is reduced": {"reduce_each_batch": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_change_no_number(name):
    """They choose what is where, and when."""
    size = 4 if "mesh_shape" in OPTIONS[name] else 2
    case = "accumulation with weights"
    found = under_fsdp(size, group_cases.train, case, **OPTIONS[name])
    check_same(facts_alone(case), found, 2e-6)


def test_layers_may_compute_in_another_type():
    """Up to its rounding, with gradients reduced in float32, also where they accumulate."""
    case = "accumulation"
    found = under_fsdp(2, group_cases.train, case, mixed_precision="bf16")
    check_same(facts_alone(case), found, 0.05)
    assert facts_alone(case)["weights"] != found[0]["weights"]


def test_four_processes_come_to_the_same_as_one():
    """Also where some have no sample of the last batch."""
    names = ["alone", "a part of no sample", "accumulation with weights", "all"]
    several = under_fsdp(4, group_cases.train_all, names)
    for name in names:
        check_same(facts_alone(name), [facts[name] for facts in several], 2e-6)


def test_an_optimizer_from_before_is_refused():
    """As it would update parameters that the model has no more."""
    for text in under_fsdp(2, group_errors.refused_optimizer, layers=None):
        assert "Give a factory, which is called with those of loop.model: partial(SGD" in text


REFUSED = {
    "Linaer": ({"layers": "Linaer"}, "Did you mean 'Linear'?"),
    "a shape": ({"mesh_shape": (2, 2)}, "which is for 4 processes, but there are 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_run_is_refused(name):
    """Before training begins, in each process."""
    options, expected = REFUSED[name]
    for text in under_fsdp(2, group_errors.refused_argument, **options):
        assert expected in text


def test_a_model_that_is_not_called_as_a_whole_is_refused():
    """Its parameters are gathered as it is called."""
    for text in under_fsdp(2, group_errors.error_of, "not whole"):
        assert "call it as a whole there, not a module in it, or train with ddp" in text


# -- components -----------------------------------------------------------------------------


def test_gradients_that_are_pending_can_be_dropped():
    """As with ddp, where they are reduced later than a component drops them."""
    with_ddp = in_group(2, group_values.skipped, 3)
    with_fsdp = under_fsdp(2, group_values.skipped, 3)
    for expected, found in zip(with_ddp, with_fsdp, strict=True):
        assert expected[:2] == found[:2]
        assert expected[0] == 2
        assert pytest.approx(flat(expected[2]), abs=2e-6) == flat(found[2])


def test_a_gradient_that_overflows_in_one_process_skips_the_step_of_all():
    """And lowers the scale of the loss in all."""
    first, second = under_fsdp(2, group_values.overflown)
    assert first == second
    assert (6, 1) == first[:2]


def test_gradients_that_are_pending_between_epochs_are_in_the_state():
    """Those of data without a length, whole ones in the main process."""
    alone = group_checkpoints.pending_of_a_stream()
    found = under_fsdp(2, group_checkpoints.pending_of_a_stream)
    assert [True, True, False, True] == [bool(each) for each in alone["pending"]]
    assert pytest.approx(flat(alone["pending"]), abs=2e-6) == flat(found[0]["pending"])
    for facts in found:
        assert pytest.approx(flat(alone["weights"]), abs=2e-6) == flat(facts["weights"])


PASSES = {  # of both processes: batches, and passes
    "uneven": [(4, 4), (3, 4)],
    "list": [(2, 2), (1, 2)],
    "less than one each": [(1, 1), (0, 1)],
    "a stream": [(0, 3), (3, 3)],
}


@pytest.mark.parametrize("name", PASSES)
def test_evaluation_counts_each_sample_once(name):
    """Each process computes as many forward passes, and counts those of its own batches."""
    alone = group_data.passes(name)
    found = under_fsdp(2, group_data.passes, name)
    assert PASSES[name] == [facts["counts"] for facts in found]
    for facts in found:
        assert pytest.approx(alone["metrics"], abs=1e-6) == facts["metrics"]
        assert pytest.approx(flat(alone["weights"]), abs=2e-6) == flat(facts["weights"])


@pytest.mark.parametrize(
    "phase",
    ["predict", "a test that is stopped", "a test behind which a component calls the model"],
)
def test_averaged_weights_are_replaced_behind_an_evaluation(phase):
    """The parameters are the shared out ones again when other components restore theirs."""
    found = under_fsdp(2, group_data.left_evaluation, phase, layers=None)  # the whole is one layer
    for before, after in found:
        assert before == after


@pytest.mark.parametrize(("phase", "n"), [("predict", 1), ("test", 2)])
def test_the_forward_passes_of_an_evaluation_are_closed_where_that_is_needed(phase, n):
    """Behind the batches of a test, and where it is left; that goes through all modules."""
    assert [n, n] == under_fsdp(2, group_data.times_closed, phase)


def test_predictions_are_of_the_samples_of_a_process():
    """Without those of passes that it computes for others alone."""
    assert [7, 6] == under_fsdp(2, group_data.predicted)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stop_in_one_process_ends_all_at_the_same_safe_point(rank):
    """In a batch, where the others are in the same one."""
    first, second = under_fsdp(2, group_stops.stopped, rank, "on_forward_pass", 1)
    assert first == second
    assert first[0]


# -- checkpoints ----------------------------------------------------------------------------


def saved(parallel, size, directory, **options):
    """Return what a training with checkpoints comes to in each process."""
    options = {"noise": False, "rich": True, **options}
    if size == 1:
        return [group_checkpoints.saved(directory, **options)]
    function = group_checkpoints.saved_with
    return in_group(size, group_loops.under, parallel, function, directory, options)


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


def test_a_tensor_that_one_process_alone_shares_out_is_refused(tmp_path):
    """Instead of a checkpoint that lacks it, or of processes that wait for one another."""
    for text in under_fsdp(2, group_checkpoints.other_shards, tmp_path):
        assert "StateError" in text
        assert "components.shard-in-one.tensor" in text


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
