"""Checkpoints of groups: saved by one process for all, resumed by any number of them."""

import datetime

import group_checkpoints
import pytest
import torch
from group_equality import forget_the_stop
from process_groups import in_group


def names(directory):
    """Return the names of what is in a directory of checkpoints."""
    return sorted(path.name for path in directory.iterdir() if path.name[0] != ".")


def saved(size, directory, **options):
    """Return what a training with checkpoints comes to in each process."""
    if size == 1:
        return [group_checkpoints.saved(directory, **options)]
    return in_group(size, _saved, directory, options)


_saved = group_checkpoints.saved_with


@pytest.mark.parametrize("every", ["epoch", 3])
def test_a_group_resumes_to_the_same_bits(tmp_path, every):
    """Each process with the random numbers, the metrics and the state that it had."""
    whole = saved(2, tmp_path / "whole", every=every, own=True)
    for n_epochs in (1, 3) if every == "epoch" else (2, 3):
        stop = None if n_epochs == 3 else (1, "on_batch_begin", 1)
        resumed = saved(2, tmp_path / "parts", every=every, own=True, n_epochs=3, stop=stop)
        if stop:
            forget_the_stop(tmp_path / "parts")
    for before, after in zip(whole, resumed, strict=True):
        assert before["weights"] == after["weights"]
        assert before["metrics"] == after["metrics"]
        assert before["draw"] == after["draw"]
        assert before["own"] == after["own"]
    assert whole[0]["draw"] != whole[1]["draw"]


def test_a_checkpoint_has_the_random_numbers_of_each_process(tmp_path):
    """Those of the main process alone would be other ones than the second process has."""
    whole = saved(2, tmp_path)
    path = min(tmp_path.glob("0*")) / "state.pt"
    state = torch.load(path, weights_only=True)
    assert 2 == state["group"]["size"]
    assert {"random"} <= state["group"]["ranks"][1].keys()
    assert not torch.equal(state["random"]["torch"], state["group"]["ranks"][1]["random"]["torch"])
    assert whole[0]["error"] is None


@pytest.mark.parametrize(("sizes", "every"), [((2, 1), "epoch"), ((1, 2), "epoch"), ((2, 4, 1), 3)])
def test_another_number_of_processes_resumes(tmp_path, sizes, every):
    """On the same samples, to the same weights up to rounding."""
    options = {"every": every, "noise": False, "metrics": False}
    [whole] = saved(1, tmp_path / "whole", **options)
    for i, size in enumerate(sizes):
        stop = (0, "on_batch_begin", 1, i) if i + 1 < len(sizes) else None
        found = saved(size, tmp_path / "parts", stop=stop, resume="auto", **options)
        assert not stop or found[0]["stopped"]
        if stop:
            forget_the_stop(tmp_path / "parts")
    for facts in found:
        assert whole["steps"] == facts["steps"]
        for name, value in whole["weights"].items():
            assert torch.allclose(torch.tensor(value), torch.tensor(facts["weights"][name]), 1e-5)


def test_state_that_differs_by_process_is_not_dropped_silently(tmp_path):
    """On another number of processes it is refused by name, or that of the main process."""
    saved(2, tmp_path, own=True, n_epochs=1)
    [facts] = saved(1, tmp_path, own=True, n_epochs=2)
    assert "the state of 'own-state' was another one in each" in facts["error"]
    [facts] = saved(1, tmp_path, own=True, n_epochs=2, ignore=["own-state"])
    assert facts["error"] is None
    assert any("resumes in one process, and was saved in 2" in each for each in facts["warnings"])


def test_a_checkpoint_by_time_is_saved_by_all(tmp_path):
    """The clock of the main process decides."""
    facts = saved(2, tmp_path, every=datetime.timedelta(seconds=0.05), keep=None, n_epochs=30)
    assert [None, None] == [each["error"] for each in facts]
    assert names(tmp_path)


def test_a_group_resumes_from_what_a_thread_has_written(tmp_path):
    """To the same bits, with the state that each process had when it was taken."""
    whole = saved(2, tmp_path / "whole", own=True)
    options = {"asynchronous": True, "every": 3, "own": True}
    stopped = saved(2, tmp_path / "parts", stop=(1, "on_batch_begin", 1), **options)
    assert [None, None] == [each["error"] for each in stopped]
    forget_the_stop(tmp_path / "parts")
    resumed = saved(2, tmp_path / "parts", **options)
    for name in ("weights", "metrics", "draw", "own"):
        assert [each[name] for each in whole] == [each[name] for each in resumed]
