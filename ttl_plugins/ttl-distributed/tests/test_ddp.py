"""What `ddp` does in a group of processes, and outside one."""

import group_data
import group_errors
import group_stops
import group_values
import pytest
import torch
from process_groups import in_group
from ttl_distributed import Ddp, group
from ttl_distributed.environment import Place, place_in

from ttl_core import RunError, TrainTestLoop
from ttl_core.testing import Step, tiny_data, tiny_model

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}


# -- alone ----------------------------------------------------------------------------------


def test_alone_no_hook_of_it_is_called():
    """Without torchrun the name in the list costs nothing."""
    loop = TrainTestLoop(tiny_model(), [Step(), "ddp"], tiny_data())
    loop.train(1)
    assert 1 == loop.group.size
    assert "ddp" not in loop.explain()


def test_threads_of_the_group_may_release_tensors_before_the_interpreter_ends(monkeypatch):
    """What is sharded holds them; one that releases a tensor later would abort the process."""
    order = []
    monkeypatch.setattr(group.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(group.dist, "destroy_process_group", lambda: order.append("left"))
    monkeypatch.setattr(group.time, "sleep", lambda seconds: order.append(seconds > 0))
    group._leave(group.ProcessGroup(0, 2, torch.device("cpu")))
    assert ["left", True] == order


def test_what_would_keep_the_group_is_imported_before_it_is_made(monkeypatch):
    """Else gloo's threads are there when the interpreter ends, and may abort a finished process."""
    order = []
    monkeypatch.setattr(group, "import_module", order.append)
    monkeypatch.setattr(group.dist, "init_process_group", lambda *_, **__: order.append("group"))
    monkeypatch.setattr(group, "store_of_start", lambda *_: None)
    monkeypatch.setattr(group.atexit, "register", lambda *_: None)
    monkeypatch.setattr(group, "_joined", None)
    group.join(Place(rank=0, size=2, local_rank=0), timeout=1)
    assert ["torch._dynamo", "group"] == order


@pytest.mark.parametrize("name", TORCHRUN)
def test_half_an_environment_is_an_error(name, monkeypatch):
    """It says what is missing, when the component is made."""
    for each, value in TORCHRUN.items():
        if each != name:
            monkeypatch.setenv(each, value)
    with pytest.raises(RunError, match=f"not {name}, so it is not known"):
        Ddp()


@pytest.mark.parametrize("changed", [{"RANK": "x"}, {"RANK": "2"}, {"LOCAL_RANK": "-1"}])
def test_an_environment_that_does_not_fit_is_an_error(changed):
    """Ranks are numbers below the number of processes."""
    with pytest.raises(RunError, match="Start the script by torchrun"):
        place_in({**TORCHRUN, **changed})


# -- together -------------------------------------------------------------------------------


def test_the_methods_of_a_group_combine_the_values_of_processes():
    """Each process gets the same."""
    expected = [3, 1.0, [2.0, 2.0], [1.0, 1.0], True, False, [{"rank": 0}, {"rank": 1}], 0]
    assert [expected] * 2 == in_group(2, group_values.collectives)


POINTS = [
    ("on_train_begin", None),
    ("on_epoch_begin", None),
    ("on_batch_begin", 0),
    ("on_forward_pass", 1),
    ("on_loss_compute", 1),
    ("on_backward_pass", 2),
    ("on_optim_step", 1),
    ("on_batch_end", 3),
    ("on_safe_point", 1),
    ("on_epoch_end", None),
    ("on_safe_point", None),
]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("point", "batch_num"), POINTS)
def test_a_stop_in_one_process_ends_all_at_the_same_safe_point(point, batch_num, rank):
    """At any point, in either process."""
    first, second = in_group(2, group_stops.stopped, rank, point, batch_num)
    assert first == second
    is_stopped, n_epochs, n_steps, _ = first
    # in epoch 1, so on_train_begin is too early, and the requested batch at most one more
    assert is_stopped == (point != "on_train_begin")
    if is_stopped:
        at_end = batch_num is None and point != "on_epoch_begin"
        assert n_epochs == 1
        last = 8 if at_end else 4 + (batch_num or 0) + 2
        assert n_steps <= last


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("phase", "point", "batch_num"),
    [
        ("test", "on_test_begin", None),
        ("test", "on_batch_end", 2),
        ("valid", "on_loss_compute", 2),
        ("predict", "on_batch_begin", 2),
        ("list", "on_batch_end", 2),
        ("test", "on_batch_end", 9),  # the last one
    ],
)
def test_a_stop_ends_an_evaluation_in_all_processes(phase, point, batch_num, rank):
    """At the same batch, one or two after it was requested, with its end point."""
    stopped = group_stops.evaluation_stopped
    first, second = in_group(2, stopped, phase, rank, point, batch_num)
    assert first == second
    n_batches, ended, is_stopped, reason = first
    assert (batch_num or 0) + 1 <= n_batches <= (batch_num or 0) + 2
    assert ["test"] * (phase in ("test", "list")) == ended  # and no on_epoch_end
    assert (True, "due") == (is_stopped, reason)


def test_short_batches_of_an_evaluation_are_not_slowed_down_by_votes():
    """There are some between two votes; the processes still end at the same one."""
    arguments = "test", 1, "on_batch_end", 2, 2000, 0.002
    first, second = in_group(2, group_stops.evaluation_stopped, *arguments)
    assert first == second
    assert first[0] < 500
    assert (["test"], True, "due") == first[1:]


@pytest.mark.parametrize("every", [1, 2])
def test_all_processes_skip_a_batch_that_is_not_finite_in_one(every):
    """`nan-guard` decides for all of them."""
    first, second = in_group(2, group_values.skipped_in_one, every)
    assert first == second
    assert first[0] == 2


def test_gradients_that_are_averaged_by_hand_stay_sparse():
    """Where they are sparse in all processes that have one, as optimizers for such need them."""
    found = in_group(2, group_values.averaged_gradients)
    (first, *_), (second, *_) = found
    for _, averaged, are_sparse in found:
        assert [True, True, False, False] == are_sparse
        for one, other, mean in zip(first, second, averaged, strict=True):
            assert torch.equal((one + other) / 2, mean)


def test_random_numbers_are_those_of_a_plain_run_in_the_main_process():
    """Other processes have streams of their own."""
    alone = group_values.first_random_numbers()
    first, second = in_group(2, group_values.first_random_numbers)
    assert alone == first
    assert not set(first) & set(second)


# -- data -----------------------------------------------------------------------------------

REFUSED = {
    "shuffled": "In place of shuffle=True write DataLoader(dataset, batch_size, sampler=ttl_core",
    "small": "batch_size=1, which all 2 processes share",
    "list": "set_rank(rank, size)",
    "distributed": "has taken the part of this process already",
    "unbatched": "batch_size=None",
}


@pytest.mark.parametrize("name", REFUSED)
def test_data_that_cannot_be_shared_are_refused(name):
    """With the line to write, in each process, before the first batch."""
    for text in in_group(2, group_data.refused, name):
        assert REFUSED[name] in text


@pytest.mark.parametrize("every", [1, 3])
def test_a_stream_may_share_itself_out(every):
    """It has a method that is told which part to yield; its end is where no step is due, for 3."""
    alone = group_data.streamed(every)
    for facts in in_group(2, group_data.streamed, every):
        assert alone["steps"] == facts["steps"] == 6 // every
        assert pytest.approx(alone["metrics"], abs=1e-6) == facts["metrics"]
        for name, value in alone["weights"].items():
            torch.testing.assert_close(torch.tensor(facts["weights"][name]), torch.tensor(value))


def test_evaluation_counts_each_sample_once():
    """Of a loader, of a list of batches, and of fewer samples than processes."""
    alone = group_data.evaluated()
    for found in in_group(2, group_data.evaluated):
        for expected, metrics in zip(alone, found, strict=True):
            assert pytest.approx(expected, abs=1e-6) == metrics


# -- mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["one steps", "one steps in between", "one steps at the end", "one skips"]
)
def test_processes_that_disagree_fail_together(name):
    """Instead of waiting for one another, whenever they decide it."""
    for text in in_group(2, group_errors.error_of, name):
        assert "the processes disagree" in text
        assert "loop.group.any(...)" in text
