"""What a run leaves when it fails."""

from collections import deque

import pytest
from checkpoint_runs import (
    N_BATCHES,
    Announced,
    CallAt,
    CountBatches,
    FailAfter,
    fail,
    make_loop,
    names_in,
    positions,
    weights,
)
from ttl_checkpoint.reading import read_state, verify
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, StateError


def test_leaves_the_state_at_a_failure(tmp_path, caplog):
    """After an exception there is a directory crash-..., with the state at the failure."""
    loop = fail(tmp_path, 4)
    assert ["000001-epoch-1-step-3", "crash-000002-epoch-1-step-4"] == names_in(tmp_path)
    path = tmp_path / "crash-000002-epoch-1-step-4"
    state = read_state(path)
    assert weights(loop) == [value.tolist() for value in state["model"].values()]
    assert (None, "exception") == (state["position"], verify(path)["reason"])
    expected = f"checkpoint: {path} holds the state at the failure, to inspect"
    assert [expected] == caplog.messages


def test_does_not_resume_from_a_failure(tmp_path):
    """Started again, the script resumes from the safe point before."""
    fail(tmp_path, 4)
    loop = make_loop(tmp_path, count := CountBatches())
    loop.train(3)
    assert (2 * N_BATCHES, 9) == (count.n, loop.global_step)


def test_refuses_to_resume_from_a_failure_that_is_named(tmp_path):
    """What a failure left is there to be inspected, and the error says why."""
    fail(tmp_path, 4)
    loop = make_loop(tmp_path, resume=tmp_path / "crash-000002-epoch-1-step-4")
    with pytest.raises(StateError, match="not taken at a safe point"):
        loop.train(3)
    assert 0 == loop.global_step


def test_keeps_the_newest_two_failures(tmp_path):
    """There are two directories crash-... at most, and they do not count in `keep`."""
    for n in (3, 4, 5, 6):
        fail(tmp_path, n, keep=2)
    crashes = [name for name in names_in(tmp_path) if name.startswith("crash-")]
    assert ["crash-000004-epoch-1-step-5", "crash-000006-epoch-2-step-6"] == crashes
    assert ["000001-epoch-1-step-3", "000005-epoch-2-step-6"] == [
        name for name in names_in(tmp_path) if not name.startswith("crash-")
    ]


def test_a_run_that_fails_before_its_first_batch_leaves_nothing(tmp_path):
    """As one that cannot be resumed: the state would be that of no training."""
    make_loop(tmp_path).train(1)
    before = names_in(tmp_path)
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, CallAt("on_epoch_begin", lambda loop: 1 // 0), resume="never").train(1)
    assert before == names_in(tmp_path)


def test_starts_again_where_there_are_only_failures(tmp_path):
    """A run that failed before its first checkpoint starts again."""
    fail(tmp_path, 1)
    assert ["crash-000001-epoch-0-step-1"] == names_in(tmp_path)
    make_loop(tmp_path, count := CountBatches()).train(1)
    assert N_BATCHES == count.n


def test_no_run_resumes_from_a_failure_at_a_safe_point(tmp_path):
    """Some components had not handled that point yet, so its state has no position either."""
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, CallAt("on_safe_point", lambda loop: 1 // 0)).train(1)
    assert read_state(tmp_path / "crash-000001-epoch-0-step-1")["position"] is None


def test_what_is_being_written_at_a_failure_is_announced(tmp_path):
    """An asynchronous checkpoint that is being written is waited for, and counts."""
    announced = Announced()
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, announced, FailAfter(4), every=1, asynchronous=True, keep=None).train(2)
    assert [(0, 1), (0, 2), (1, 3), (1, 4)] == positions(tmp_path)[:4]
    assert Store(tmp_path).everything()[:4] == announced.paths


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_leaves_nothing_where_a_run_is_ended(tmp_path, error):
    """Ctrl-C and exit are no failures."""
    fail(tmp_path, 1, error)
    assert [] == names_in(tmp_path)


def test_a_state_that_cannot_be_saved_fails_before_work_starts(tmp_path):
    """What files cannot hold is an error in on_train_begin, not at the first checkpoint."""

    class Memory(LoopComponent):
        def state_dict(self):
            return {"x": deque()}

        def load_state_dict(self, state):
            pass

    loop = make_loop(tmp_path, Memory())
    with pytest.raises(StateError, match=r"memory\.x is collections\.deque: return list"):
        loop.train(1)
    assert 0 == loop.global_step
    assert [] == names_in(tmp_path)
