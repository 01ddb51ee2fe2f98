"""Checkpoints that all processes of a group write together, each the parts that it has."""

import shutil

import group_checkpoints
import group_loops
import pytest
import shard_cases
import torch
from group_equality import flat, forget_the_stop
from process_groups import in_group, what_is_left_of_group
from shard_cases import RICH, bytes_of_parts
from ttl_checkpoint.reading import read_checkpoint, verify

from ttl_core import whole_tensor
from ttl_core.cli.main import main

LAYERS = {"layers": "Linear"}
FILES = ["manifest.json", "rank-00000.bin", "rank-00001.bin", "state.pt"]


def under_fsdp(size, function, *arguments, **options):
    """Return what a function returns in each process of a group, with fsdp; or in this one."""
    if size == 1:
        return [function(*arguments)]
    return in_group(size, group_loops.under, {**LAYERS, **options}, function, *arguments)


def saved(size, directory, **options):
    """Return what a training with checkpoints comes to in each process."""
    if size == 1:
        return [shard_cases.saved(directory, **options)]
    return under_fsdp(size, group_checkpoints.saved_with, directory, {**RICH, **options})


def newest(directory):
    """Return the newest checkpoint of a directory."""
    return max(directory.glob("0*"))


def same_numbers(expected, facts):
    """Check weights, averages and optimizer state up to rounding."""
    for part in ("weights", "averages", "optimizer"):
        assert pytest.approx(flat(expected[part]), rel=1e-5, abs=1e-6) == flat(facts[part])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A directory of checkpoints of two processes, and what these came to."""
    directory = tmp_path_factory.mktemp("two")
    options = {**RICH, "metrics": True, "best": "valid/loss"}
    facts = under_fsdp(2, shard_cases.saved_without_gathering, directory, options)
    assert [None, None] == [each["error"] for each in facts]
    return directory, facts


@pytest.fixture
def copied(two, tmp_path):
    """A copy of that directory."""
    shutil.copytree(two[0], tmp_path / "copied")
    return tmp_path / "copied"


# -- saving ---------------------------------------------------------------------------------


def test_each_process_writes_its_parts_and_no_whole_tensor_is_made(two):
    """While it saves; what the main process writes besides has no tensor of the model."""
    directory, _ = two
    for path in directory.glob("0*"):
        assert verify(path)["finite"]
        assert FILES == sorted(file.name for file in path.iterdir())
        assert FILES[1:] == sorted(verify(path)["files"])
        state = torch.load(path / "state.pt", weights_only=True)
        assert 0 == shard_cases.n_numbers(state["model"])
        assert 0 == shard_cases.n_numbers(state["components"]["ema"]["module.0.weight"])
    # of 4 times 41 numbers in float32, of which each part begins at a multiple of 64 bytes
    assert all(4 * 4 * 10 <= size <= 4 * 4 * 64 for size in bytes_of_parts(path).values())


def test_replicas_write_each_part_once(tmp_path):
    """Those of the first replica do."""
    options = {**RICH, "n_epochs": 1}
    found = under_fsdp(4, shard_cases.saved_without_gathering, tmp_path, options, mesh_shape=(2, 2))
    assert [None] * 4 == [each["error"] for each in found]
    _, state = read_checkpoint(newest(tmp_path))
    assert 2 == len(bytes_of_parts(newest(tmp_path)))
    weights = {name: whole_tensor(value).tolist() for name, value in state["model"].items()}
    assert found[0]["weights"] == weights


def test_checkpoints_without_distributed_tensors_stay_as_they_are(tmp_path):
    """Of ddp too: one file of the state."""
    in_group(2, group_checkpoints.saved_with, tmp_path, {**RICH, "n_epochs": 1})
    assert ["manifest.json", "state.pt"] == sorted(file.name for file in newest(tmp_path).iterdir())
    assert "parts" not in torch.load(newest(tmp_path) / "state.pt", weights_only=True)


def test_a_part_that_is_not_finite_is_in_the_manifest(tmp_path):
    """Whichever process has it."""
    under_fsdp(2, shard_cases.poisoned, tmp_path)
    assert verify(newest(tmp_path))["finite"] is False


def test_a_tensor_that_is_not_in_slices_is_written_whole(tmp_path):
    """By the main process, beside the parts of others."""
    under_fsdp(2, shard_cases.summed, tmp_path)
    state = torch.load(newest(tmp_path) / "state.pt", weights_only=True)
    assert [2.0, 2.0, 2.0] == state["components"]["sums"]["tensor"].tolist()
    assert 2 == len(bytes_of_parts(newest(tmp_path)))


def test_a_variable_that_differs_by_process_is_not_dropped(tmp_path):
    """Each process gets its own; another number of processes is refused by name."""
    assert [0, 1] == under_fsdp(2, shard_cases.own_variable, tmp_path, 1)
    assert [0, 1] == under_fsdp(2, shard_cases.own_variable, tmp_path, 2)
    assert "the state of 'own' was another one in each" in shard_cases.own_variable(tmp_path, 3)


# -- loading --------------------------------------------------------------------------------


def test_resharding_changes_no_bit(tmp_path):
    """From 1 to 2, to 4, to 1 process: weights, state of the optimizer, averages, scheduler."""
    [expected] = saved(1, tmp_path / "0", n_epochs=1)
    for i, size in enumerate((1, 2, 4, 1)):
        source, target = tmp_path / str(i), tmp_path / str(i + 1)
        found = under_fsdp(size, shard_cases.saved_again, source, target, {"n_epochs": 1})
        for facts in found:
            for part in ("error", "steps", "weights", "averages", "optimizer", "rate"):
                assert expected[part] == facts[part]
        assert (size if size > 1 else 0) == len(bytes_of_parts(newest(target)))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_group_resumes_to_the_same_bits(tmp_path, two, asynchronous):
    """From what the processes have written, at once or by threads, each reading its parts alone."""
    options = {"asynchronous": asynchronous, "metrics": True, "best": "valid/loss"}
    stopped = saved(2, tmp_path, stop=(1, "on_batch_begin", 1), **options)
    assert [(True, None)] * 2 == [(facts["stopped"], facts["error"]) for facts in stopped]
    assert FILES == sorted(file.name for file in newest(tmp_path).iterdir())
    forget_the_stop(tmp_path)
    resumed = under_fsdp(2, shard_cases.saved_without_gathering, tmp_path, options)
    assert [None, None] == [facts["error"] for facts in resumed]
    for before, after in zip(two[1], resumed, strict=True):
        for name in ("weights", "metrics", "optimizer", "averages", "rate"):
            assert before[name] == after[name]


def test_one_process_loads_and_exports_the_best_weights(two, tmp_path, capsys):
    """As the group that has saved them does."""
    directory, _ = two
    several = under_fsdp(2, shard_cases.best_weights, directory)
    assert [shard_cases.best_weights(directory)] * 2 == several
    name, (weights, _) = several[0]
    from safetensors.torch import load_file

    target = tmp_path / "weights.safetensors"
    assert 0 == main(["checkpoints", str(directory), "--best", "--export", str(target)])
    exported = {name: value.tolist() for name, value in load_file(target).items()}
    assert weights == exported
    assert 0 == main(["checkpoints", str(directory / name)])
    assert "verified" in capsys.readouterr().out


DAMAGES = {
    "flipped bit": lambda file: file.write_bytes(file.read_bytes()[:-1] + b"x"),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_of_a_process_is_found_before_anything_is_loaded(copied, name):
    """The checkpoint is set aside, and the run resumes from the one before."""
    damaged = newest(copied)
    DAMAGES[name](damaged / "rank-00001.bin")
    [facts] = saved(1, copied, metrics=True, best="valid/loss")
    assert (None, 12) == (facts["error"], facts["steps"])
    assert (copied / f"corrupt-{damaged.name}").exists()


# -- failures -------------------------------------------------------------------------------

HOWS = [("full", False), ("full", True), ("stuck", True), ("another directory", False)]


@pytest.mark.parametrize(("how", "asynchronous"), HOWS)
def test_a_process_that_does_not_write_fails_all(tmp_path, how, asynchronous):
    """Or, with on_failure="warn", costs all the checkpoint alone."""
    text = {"full": "rank 1 on", "stuck": "rank 1 has written nothing"}.get(how, "can write to")
    for on_failure in ("raise", "warn"):
        directory = tmp_path / on_failure
        options = {"asynchronous": asynchronous, "on_failure": on_failure, "n_epochs": 1}
        for facts in under_fsdp(2, shard_cases.failed, directory, how, options):
            told = [facts["error"]] if on_failure == "raise" else facts["warnings"]
            assert any(text in each for each in told), told
            assert on_failure == "raise" or facts["error"] is None
        assert not list(directory.glob("0*"))
        assert not list(directory.glob(".tmp-*"))


def test_a_thread_that_cannot_write_fails_all_before_the_next_save(tmp_path):
    """At one safe point, at which all processes know of it."""
    options = {"asynchronous": True, "every": 4, "mid_epoch": False, "n_epochs": 2, "pause": 0.01}
    first, second = under_fsdp(2, shard_cases.failed, tmp_path, "full", options)
    for facts in (first, second):
        assert "rank 1 on" in facts["error"]
    assert 4 < first["steps"] == second["steps"] < 8


def killed(directory, victim, at, **options):
    """Kill one process in its second checkpoint; return the calls of each, and what is left."""
    arguments = directory, victim, at, {**RICH, "n_epochs": 1, "every": 1, **options}
    return what_is_left_of_group(2, group_loops.under, LAYERS, shard_cases.killed, *arguments)


def check_kill(directory, victim, at, expected, **options):
    """Check that a kill leaves complete checkpoints alone, and that the run resumes."""
    found = killed(directory, victim, at, **options)
    assert found[victim] is None
    n_there = [verify(path)["step"] for path in sorted(directory.glob("0*"))]
    assert n_there in ([1], [1, 2])
    [facts] = saved(1, directory, n_epochs=1, every=1)
    assert facts["error"] is None
    assert not list(directory.glob(".tmp-*"))
    same_numbers(expected, facts)
    return n_there


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What an epoch comes to without a kill, and how many calls each process makes to save."""
    found = killed(tmp_path_factory.mktemp("whole"), 0, None)
    return found[0][0], [n_calls for _, n_calls in found]


KILLS = [(1, 1, False), (1, 3, True), (0, 3, False), (0, -3, False)]


@pytest.mark.parametrize(("victim", "at", "asynchronous"), KILLS)
def test_a_kill_leaves_a_complete_checkpoint_or_none(tmp_path, expected, victim, at, asynchronous):
    """Of any process, at any call; the rest in `make soak`."""
    facts, n_calls = expected
    at = at if at > 0 else n_calls[victim] + at
    check_kill(tmp_path, victim, at, facts, asynchronous=asynchronous)


@pytest.mark.soak
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_kill_at_any_call_leaves_a_complete_checkpoint_or_none(
    tmp_path, expected, victim, asynchronous
):
    """Both are met, where the main process is killed."""
    facts, n_calls = expected
    left = [
        check_kill(tmp_path / str(at), victim, at, facts, asynchronous=asynchronous)
        for at in range(1, n_calls[victim] + 1)
    ]
    assert [1] in left
    assert victim == 1 or [1, 2] in left
