"""Being told to end by SIGTERM or ctrl-C: real processes, and real signals."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ttl_checkpoint.__main__ import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork() and process groups")

STATUS = {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT}
RAISED = {signal.SIGTERM: "SystemExit", signal.SIGINT: "KeyboardInterrupt"}
LIMIT = 40  # seconds, for a run that hangs
TERM, INT = signal.SIGTERM, signal.SIGINT


class Nursery:
    """Fork runs of `signal_runs.py`, one at a time, and listen to them."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("signal_runs.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._heard = b""
        assert "ready" == self.hear()

    def tell(self, line):
        """Write a line to the run, or to who forks it."""
        self._process.stdin.write(line.encode() + b"\n")

    def hear(self, limit=LIMIT):
        """Return the next line, or None if there is none within some seconds."""
        deadline = time.monotonic() + limit
        while b"\n" not in self._heard:
            left = max(0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 4096)
            assert data, "the process that forks runs has ended"
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def close(self):
        """End the process that forks."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Run:
    """A run in a process and a group of its own.

    Attributes:
        said: the lines that it has written.
        status: how it has ended, as subprocess has it; None before that.
    """

    def __init__(self, nursery, folder, run, limit=LIMIT, **arguments):
        self.said = []
        self.status = None
        self._nursery = nursery
        self._limit = limit
        self._errors = folder / f"errors-{time.monotonic_ns()}.txt"
        task = {"run": run, "errors": str(self._errors), "directory": str(folder / "saved")}
        nursery.tell(json.dumps({**task, **arguments}))
        self.pid = int(self._next().removeprefix("pid "))

    @property
    def errors(self):
        """What it has written to its standard error."""
        return self._errors.read_text()

    def until(self, line):
        """Wait for a line."""
        while (said := self._next()) != line:
            assert said is not None, f"never said {line!r}, but {self.said}\n{self.errors}"

    def send(self, number, to_group=False):
        """Send a signal."""
        (os.killpg if to_group else os.kill)(self.pid, number)

    def go_on(self):
        """Let it go on from where it waits."""
        self._nursery.tell("")

    def end(self):
        """Wait for the end, and return the status; "hangs" if it does not come."""
        while self._next() is not None:
            pass
        return self.status

    def _next(self):
        if self.status is not None:
            return None
        line = self._nursery.hear(self._limit)
        if line is None:
            self.kill()
            self.status = "hangs"
            return None
        if line.startswith("ended "):
            self.status = int(line.split()[1])
            return None
        self.said.append(line)
        return line

    def kill(self):
        """End it and its workers, if it has not ended."""
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)
            while not (self._nursery.hear() or "ended").startswith("ended"):
                pass

    def since(self, line):
        """Return what it has said since it said a line."""
        return self.said[self.said.index(line) + 1 :]

    def announced(self):
        """Return the names of the checkpoints that were announced."""
        return [line.split()[1] for line in self.said if line.startswith("saved ")]

    def bits(self):
        """Return what tells the bits that it has ended with."""
        assert 0 == self.end(), self.errors
        return next(line for line in self.said if line.startswith("bits "))


@pytest.fixture(scope="module")
def nursery():
    """Return a process that has imported torch, and forks runs."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def start(nursery, tmp_path):
    """Return a function that starts a run, with a folder of this test for its files."""
    runs = []

    def start(run="train", **arguments):
        runs.append(Run(nursery, tmp_path, run, **arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


@pytest.fixture(scope="module")
def reference(nursery, tmp_path_factory):
    """Return a function that gives the bits of a run that nobody disturbs."""
    known = {}

    def reference(context="fork", shuffle=None):
        if (context, shuffle) not in known:
            folder = tmp_path_factory.mktemp("reference")
            run = Run(nursery, folder, "train", context=context, shuffle=shuffle)
            known[context, shuffle] = run.bits()
        return known[context, shuffle]

    return reference


def ended_by(start, number, *, to_group=False, **arguments):
    """Return a run to which a signal was sent at its moment."""
    run = start(**arguments)
    run.until("here")
    run.send(number, to_group)
    run.go_on()
    run.end()
    return run


def check_ended_as_documented(run, number):
    """Check that a run went on to the next safe point and ended there as one that was told to."""
    assert STATUS[number] == run.status, run.errors
    after = run.since("here")
    safe = [line for line in after if line.startswith("safe ")]
    assert len(safe) <= 1  # none where it was at one when the signal came
    assert {"run is left", f"exception {RAISED[number]}"} <= set(after)
    assert "train ends" not in after
    assert "exited unexpectedly" not in run.errors


def check_nothing_is_lost(start, folder, run, bits, **data):
    """Check that all that was done is in a whole checkpoint, and leads to the right bits."""
    assert 0 == main([str(folder / "saved")])
    names = sorted(path.name for path in (folder / "saved").glob("0*"))
    assert sorted(run.announced()) == names
    manifest = json.loads((folder / "saved" / names[-1] / "manifest.json").read_text())
    safe = [line.split()[1] for line in run.said if line.startswith("safe ")]
    assert int(safe[-1]) == manifest["step"]
    assert bits == start(**data).bits()


# -- the first signal -----------------------------------------------------------------------

AT_ONE_MOMENT = [
    # which, to the group, workers, at which point of the loop
    (TERM, False, 0, {"point": "on_grads_reset", "step": 2}),
    (INT, False, 0, {"point": "on_batch_begin", "step": 0}),
    (TERM, False, 0, {"point": "on_epoch_begin", "step": 4, "desc": "valid"}),
    (INT, False, 0, {"point": "on_forward_pass", "step": 8, "desc": "valid", "batch": 3}),
    (TERM, False, 0, {"point": "on_safe_point", "step": 9}),
    (INT, False, 0, {"point": "checkpoint_saved", "step": 8, "desc": "valid"}),
    (TERM, True, 2, {"point": "on_backward_pass", "step": 1}),
    (INT, True, 2, {"point": "on_optim_step", "step": 6}),
    (TERM, True, 2, {"point": "on_batch_end", "step": 4}),
    (INT, True, 2, {"point": "on_loss_compute", "step": 4, "desc": "valid", "batch": 1}),
    (TERM, True, 2, {"point": "on_forward_pass", "step": 8, "desc": "valid", "batch": 1}),
]


@pytest.mark.parametrize(("number", "to_group", "n_workers", "moment"), AT_ONE_MOMENT)
def test_first_signal_is_obeyed_at_the_next_safe_point(
    start, tmp_path, reference, number, to_group, n_workers, moment
):
    """Whenever a signal comes, the run saves at the safe point after it and ends."""
    data = {"n_workers": n_workers, "options": {"keep": None}}
    run = ended_by(start, number, to_group=to_group, moment=moment, **data)
    check_ended_as_documented(run, number)
    check_nothing_is_lost(start, tmp_path, run, reference(), **data)


@pytest.mark.parametrize("number", [TERM, INT])
def test_first_signal_ends_the_process_and_its_workers(start, tmp_path, reference, number):
    """A script ends by itself after the signal, with workers under way and nobody's help."""
    moment = {"point": "on_batch_begin", "step": 1}
    ending = {"naturally": True, "limit": 10}
    run = ended_by(start, number, to_group=True, moment=moment, n_workers=2, **ending)
    check_ended_as_documented(run, number)
    check_nothing_is_lost(start, tmp_path, run, reference())


def test_first_signal_spares_workers_that_were_spawned(start, tmp_path, reference):
    """Workers that begin as new interpreters do not die of a signal to the group either."""
    moment = {"point": "on_batch_begin", "step": 1}
    run = ended_by(start, TERM, to_group=True, moment=moment, n_workers=2, context="spawn")
    check_ended_as_documented(run, TERM)
    check_nothing_is_lost(start, tmp_path, run, reference("spawn"), context="spawn")


def test_first_signal_says_what_will_happen(start):
    """Who has pressed ctrl-C reads at once what comes of it."""
    run = ended_by(start, INT, moment={"point": "on_batch_begin", "step": 1})
    assert "SIGINT: ending at the next safe point. Once more: at once\n" in run.errors


def test_first_signal_is_obeyed_where_nobody_reads_the_message(start):
    """`python script.py 2>&1 | tee log`, where ctrl-C has ended `tee` first, still saves."""
    run = ended_by(start, TERM, run="train_deaf")
    check_ended_as_documented(run, TERM)
    assert ["000001-epoch-0-step-2"] == run.announced()


def test_first_signal_awaits_an_asynchronous_write(start, tmp_path, reference):
    """What a thread is writing, and what the signal adds, is on disk before the process ends."""
    run = ended_by(start, TERM, run="train_with_slow_disk")
    check_ended_as_documented(run, TERM)
    after = run.since("here")
    assert ["000001-epoch-1-step-4", "000002-epoch-1-step-6"] == run.announced()
    assert after.index("saved 000002-epoch-1-step-6") < after.index("run is left")
    check_nothing_is_lost(start, tmp_path, run, reference())


def test_data_without_a_position_go_on_from_their_last_epoch(start, tmp_path, reference):
    """Where nothing repeats the order of data, the run ends at once and says what that costs."""
    moment = {"point": "on_batch_begin", "step": 5}
    run = ended_by(start, TERM, moment=moment, shuffle=True)
    check_ended_as_documented(run, TERM)
    assert ["000001-epoch-1-step-4"] == run.announced()
    assert "nothing repeats the order of these data" in run.errors
    assert reference(shuffle=True) == start(shuffle=True).bits()


def test_signal_after_the_last_safe_point_is_obeyed_too(start):
    """A signal that finds no safe point any more ends the script where training does."""
    moment = {"point": "on_train_end", "step": 12, "desc": "valid"}
    run = ended_by(start, TERM, run="train_and_go_on", moment=moment)
    assert "the script goes on" not in run.said
    assert 143 == run.status


# -- the second signal ----------------------------------------------------------------------

TWICE = [
    # which, which then, to the group, workers, step
    (TERM, TERM, False, 0, 5),
    (INT, INT, False, 0, 5),
    (TERM, TERM, True, 2, 6),
    (INT, INT, True, 2, 6),
    (TERM, INT, False, 0, 10),
    (INT, TERM, True, 2, 1),
]


@pytest.mark.parametrize(("first", "second", "to_group", "n_workers", "step"), TWICE)
def test_second_signal_acts_at_once(
    start, tmp_path, reference, first, second, to_group, n_workers, step
):
    """A second signal ends the run before any safe point, and what was announced is there."""
    data = {"n_workers": n_workers, "options": {"keep": None}}
    moment = {"point": "on_forward_pass", "step": step, "sleeps": True}
    run = start(moment=moment, **data)
    run.until("here")
    run.send(first, to_group)
    run.go_on()
    run.until("asleep")
    run.send(second, to_group)
    assert -second == run.end(), run.errors
    after = run.since("asleep")
    if second == INT:
        assert ["epoch is left", "run is left", "exception KeyboardInterrupt"] == after
    else:
        assert [] == after
    if run.announced():
        assert 0 == main([str(tmp_path / "saved")])
    assert reference() == start(**data).bits()


def test_workers_end_after_a_second_signal(start, tmp_path):
    """Workers that a second SIGTERM has orphaned do not stay behind."""
    os.mkfifo(tmp_path / "alive")
    ours = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        moment = {"point": "on_forward_pass", "step": 1, "sleeps": True}
        run = start(moment=moment, n_workers=2, alive=str(tmp_path / "alive"))
        run.until("here")
        run.send(TERM, to_group=True)
        run.go_on()
        run.until("asleep")
        assert ([], [], []) == select.select([ours], [], [], 0)  # somebody holds its other end
        run.send(TERM, to_group=True)
        assert -TERM == run.end()
        ended, _, _ = select.select([ours], [], [], 20)
        assert [ours] == ended
    finally:
        os.close(ours)


# -- who else handles signals ---------------------------------------------------------------


def test_earlier_handlers_are_called_too_and_come_back(start):
    """Who handled a signal before hears of it at once, and handles it again after train()."""
    run = ended_by(start, TERM, run="train_with_handlers")
    assert ["earlier handler 15", "safe 2 train"] == run.since("here")[:2]
    assert "restored True" == run.said[-1]


def test_ignored_signals_stay_ignored(start):
    """A run that ignores ctrl-C, as background jobs of scripts do, is not ended by it."""
    run = ended_by(start, INT, run="train_with_handlers", ignoring=True)
    assert {"train ends", "restored True"} <= set(run.said)


@pytest.mark.parametrize(
    ("n_others", "disabled"),
    [
        (0, False),
        pytest.param(1, False),
        pytest.param(0, True),
    ],
)
def test_handlers_come_back_after_a_run(start, tmp_path, n_others, disabled):
    """After train() signals are handled as before, however many savers there were, and when."""
    others = [str(tmp_path / f"other-{i}") for i in range(n_others)]
    run = start("train_to_the_end", others=others, disabled=disabled)
    assert 0 == run.end(), run.errors
    assert ["restored True"] == run.said[1:]


@pytest.mark.parametrize("kind", ["train_in_thread", "train_without_signals"])
def test_signals_are_left_alone(start, kind):
    """Outside the main thread, and with signals=False, no handler is set and training works."""
    run = start(kind)
    assert 0 == run.end(), run.errors
    assert "changed False" in run.said


def test_training_in_a_thread_leads_to_the_same_bits(start, reference):
    """A run in a thread, with workers, ends as one in the main thread does."""
    assert reference() == start("train_in_thread").bits()


def test_processes_of_others_end_when_they_are_told_to(start):
    """A process that a component forks in training can be terminated."""
    run = start("train_with_processes")
    assert 0 == run.end(), run.errors
    assert f"child {-TERM}" in run.said


# -- what usual savers do -------------------------------------------------------------------


def test_naive_saver_loses_what_was_done(start, tmp_path):
    """A plain torch.save at the ends of epochs loses the steps since, and nothing is undone."""
    moment = {"point": "on_batch_begin", "step": 6}
    run = ended_by(start, TERM, saver="naive", moment=moment, options={"every": 1000})
    with pytest.raises(AssertionError):
        check_ended_as_documented(run, TERM)
    state = torch.load(tmp_path / "saved" / "last.pt")
    assert ([], 4) == (run.since("here"), state["position"]["global_step"])


def test_naive_handler_loses_its_workers(start):
    """A handler that sets a flag does not keep workers from dying of a signal to the group."""
    run = start(saver="flag", n_workers=2, moment={"point": "on_batch_begin", "step": 1})
    run.until("here")
    run.send(TERM, to_group=True)
    time.sleep(0.5)  # in which workers die
    run.go_on()
    run.end()
    with pytest.raises(AssertionError):
        check_ended_as_documented(run, TERM)
    assert "DataLoader worker" in run.errors
