"""Several savers in a loop, and savers that are enabled and disabled in mid-run."""

import json
import signal
import warnings

import pytest
from checkpoint_runs import (
    ENDS,
    Announced,
    CallAt,
    CountBatches,
    InterruptAfter,
    fail,
    interrupt,
    make_loop,
    names_in,
    newest,
    positions,
    weights,
)
from ttl_checkpoint import Checkpoint
from ttl_checkpoint.reading import verify
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, RunError, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step


def test_two_need_directories_of_their_own(tmp_path):
    """A directory has one writer at a time; a second one is an error."""
    loop = make_loop(tmp_path)
    loop.components.append(Checkpoint(tmp_path / ".." / tmp_path.name, signals=False))
    with pytest.raises(RunError) as caught:
        loop.train(1)
    assert str(caught.value).startswith("another run, or another component of this one, saves into")
    assert str(caught.value).endswith("Give each a directory of its own")


def test_two_with_directories_of_their_own_work_side_by_side(tmp_path):
    """Each saves when its own is due; the hook fires for both."""
    announced = Announced()
    loop = make_loop(tmp_path / "a", announced, every=2, keep=None)
    loop.components.append(Checkpoint(tmp_path / "b", resume="never", signals=False))
    loop.train(2)
    assert [(0, 2), (1, 4), (2, 6)] == positions(tmp_path / "a")
    assert ENDS == positions(tmp_path / "b")
    assert 5 == len(announced.paths)


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_checkpoint_of_all_savers_decides(tmp_path, order):
    """C12: in whichever order they are in the list."""

    def loop(folder, *others):
        often = use("checkpoint", name="often", directory=folder / "often", every=1)
        rarely = use("checkpoint", name="rarely", directory=folder / "rarely", every=5)
        return TrainTestLoop(
            ComponentConformance.make_model(),
            [Step(), *others, *[often, rarely][::order]],
            ComponentConformance.make_data(9),
        )

    full = loop(tmp_path / "full")
    full.train(1)
    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path, InterruptAfter(7)).train(1)
    assert [(0, 5)] == positions(tmp_path / "rarely")
    resumed = loop(tmp_path, count := CountBatches())
    resumed.train(1)
    assert (2, weights(full)) == (count.n, weights(resumed))


def test_a_directory_is_free_again_after_a_run(tmp_path):
    """However a run ended, another one may write to its directory."""
    fail(tmp_path, 4)
    interrupt(tmp_path, 4)
    make_loop(tmp_path).train(1 + 1)
    make_loop(tmp_path, resume="never").train(1)
    assert 3 == len([name for name in names_in(tmp_path) if not name.startswith("crash-")])


def enabled_in_mid_run(directory, **config):
    """Return a loop whose saver is enabled in the second batch."""

    def enable(loop):
        if loop.is_training and loop.global_step == 1:
            loop.components.enable("checkpoint")

    loop = make_loop(directory, CallAt("on_batch_begin", enable), **config)
    loop.components.disable("checkpoint")
    return loop


def test_saves_when_it_is_enabled_in_mid_run(tmp_path):
    """From then on checkpoints are saved, and the run can be resumed."""
    full = enabled_in_mid_run(tmp_path, every=1, keep=None)
    full.train(2)
    assert [(1, 3), (1, 4), (1, 5), (2, 6)] == positions(tmp_path)
    first = Store(tmp_path).checkpoints()[-1]
    loop = make_loop(tmp_path / "b", resume=first)
    loop.train(2)
    assert weights(full) == weights(loop)


def test_what_was_enabled_in_mid_run_leaves_nothing_open(tmp_path):
    """After the run, signals and the directory are released, as after every run."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        loop = enabled_in_mid_run(tmp_path, signals=True)
        loop.train(1)
        assert handler is signal.getsignal(signal.SIGTERM)
        make_loop(tmp_path).train(2)  # while that loop is still there
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_second_run_follows_one_in_which_it_was_enabled(tmp_path):
    """It continues from the loop as it is, and does not resume from its own checkpoint."""
    loop = enabled_in_mid_run(tmp_path)
    loop.train(1)
    loop.train(1)
    assert 2 == loop.epoch_num


def test_saves_nothing_while_it_is_disabled(tmp_path):
    """Disabled in the middle of a run, it keeps what it has saved."""
    disable = CallAt("on_epoch_end", lambda loop: loop.components.disable("checkpoint"))
    make_loop(tmp_path, disable, every=1, keep=None).train(2)
    assert [(0, 1), (0, 2)] == positions(tmp_path)


def test_a_normal_run_gives_no_warning(tmp_path):
    """Saving, and resuming in the same environment, warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_loop(tmp_path).train(1)
        make_loop(tmp_path).train(2)
    assert json.loads((newest(tmp_path) / "manifest.json").read_text())["step"] == 6


class SignallingNumber:
    """A number that sends this process a SIGTERM when it is first converted."""

    has_sent = False

    def __float__(self):
        if not self.has_sent:
            self.has_sent = True
            signal.raise_signal(signal.SIGTERM)
        return 9.0

    def item(self):
        return 9.0


def test_a_signal_in_the_middle_of_a_safe_point_waits_for_the_next(tmp_path):
    """A signal after the decision not to save ends the run at the next safe point, saved."""

    class LogOnce(LoopComponent):
        def on_batch_end(self, loop):
            if loop.global_step < 3:
                loop.log(
                    {"value": 1.0 if loop.global_step == 1 else SignallingNumber()}, level="epoch"
                )

    loop = make_loop(tmp_path, LogOnce(), best="train/value", signals=True)
    with pytest.raises(SystemExit):
        loop.train(2)
    reasons = [(m["step"], m["reason"]) for m in map(verify, sorted(tmp_path.glob("0*")))]
    assert [(1, "best"), (3, "signal")] == reasons
