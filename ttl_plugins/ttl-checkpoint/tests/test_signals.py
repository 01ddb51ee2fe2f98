"""SIGTERM and ctrl-C end a run at a safe point: real processes, and real signals."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from multiprocessing.sharedctypes import RawValue
from types import SimpleNamespace

import pytest
import signal_server
import torch
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.preemption import _ProtectedInit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork() and process groups")

STATUS = {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT}
RAISED = {signal.SIGTERM: "SystemExit", signal.SIGINT: "KeyboardInterrupt"}
LIMIT = 40  # seconds, for a run that hangs
IN_SOAK = pytest.mark.soak  # further places of what another case tests
TERM, INT = signal.SIGTERM, signal.SIGINT


class SignalServer:
    """A process with `signal_server.py`, which forks runs, one at a time."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, signal_server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._received = b""
        assert "ready" == self.receive(5 * LIMIT)  # it imports torch

    def send(self, line):
        """Write a line to the run, or to the server if none runs."""
        self._process.stdin.write(line.encode() + b"\n")

    def receive(self, limit=LIMIT):
        """Return the next line, or None if there is none within some seconds."""
        deadline = time.monotonic() + limit
        while b"\n" not in self._received:
            left = max(0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 4096)
            assert data, "the server has ended"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Run:
    """A run in a process and a group of its own.

    Attributes:
        said: the lines that it has written.
        status: its exit status, as subprocess has it; None before it has ended.
    """

    def __init__(self, server, folder, run, limit=LIMIT, **arguments):
        self.said = []
        self.status = None
        self._server = server
        self._limit = limit
        self._errors = folder / f"errors-{time.monotonic_ns()}.txt"
        task = {"run": run, "errors": str(self._errors), "directory": str(folder / "saved")}
        server.send(json.dumps({**task, **arguments}))
        self.pid = int(self._next().removeprefix("pid "))

    @property
    def errors(self):
        """Its standard error."""
        return self._errors.read_text()

    def until(self, line):
        """Wait for a line."""
        while (said := self._next()) != line:
            assert said is not None, f"never said {line!r}, but {self.said}\n{self.errors}"

    def send(self, number, to_group=False):
        """Send a signal."""
        (os.killpg if to_group else os.kill)(self.pid, number)

    def proceed(self):
        """Let it continue where it waits."""
        self._server.send("")

    def end(self):
        """Wait for the end, and return the status; "hangs" if it does not end."""
        while self._next() is not None:
            pass
        return self.status

    def _next(self):
        if self.status is not None:
            return None
        line = self._server.receive(self._limit)
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
            while not (self._server.receive() or "ended").startswith("ended"):
                pass

    def since(self, line):
        """Return what it has said since it said a line."""
        return self.said[self.said.index(line) + 1 :]

    def announced(self):
        """Return the names of the checkpoints that were announced."""
        return [line.split()[1] for line in self.said if line.startswith("saved ")]

    def bits(self):
        """Return the line with the digest of its bits at the end."""
        assert 0 == self.end(), self.errors
        return next(line for line in self.said if line.startswith("bits "))


@pytest.fixture(scope="module")
def server():
    """Return a process that has imported torch, and forks runs."""
    server = SignalServer()
    yield server
    server.close()


@pytest.fixture
def start(server, tmp_path):
    """Return a function that starts a run, with a folder of this test for its files."""
    runs = []

    def start(run="train", **arguments):
        runs.append(Run(server, tmp_path, run, **arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.kill()


@pytest.fixture(scope="module")
def reference(server, tmp_path_factory):
    """Return a function that returns the bits of a run without signals."""
    known = {}

    def reference(context="fork", shuffle=None):
        if (context, shuffle) not in known:
            folder = tmp_path_factory.mktemp("reference")
            run = Run(server, folder, "train", context=context, shuffle=shuffle)
            known[context, shuffle] = run.bits()
        return known[context, shuffle]

    return reference


def ended_by(start, number, *, to_group=False, **arguments):
    """Return a run that has ended after a signal during its pause."""
    run = start(**arguments)
    run.until("here")
    run.send(number, to_group)
    run.proceed()
    run.end()
    return run


def check_ended_as_documented(run, number):
    """Check that a run continued to the next safe point and ended there as documented."""
    assert STATUS[number] == run.status, run.errors
    after = run.since("here")
    safe = [line for line in after if line.startswith("safe ")]
    assert len(safe) <= 1  # none if it was at one when the signal came
    assert {"run is left", f"exception {RAISED[number]}"} <= set(after)
    assert "train ends" not in after
    assert "exited unexpectedly" not in run.errors


def check_nothing_is_lost(start, folder, run, bits, **data):
    """Check that all that was done is in an intact checkpoint, and leads to the right bits."""
    assert 0 == main([str(folder / "saved")])
    names = sorted(path.name for path in (folder / "saved").glob("0*"))
    assert sorted(run.announced()) == names
    manifest = json.loads((folder / "saved" / names[-1] / "manifest.json").read_text())
    safe = [line.split()[1] for line in run.said if line.startswith("safe ")]
    assert int(safe[-1]) == manifest["step"]
    assert bits == start(**data).bits()


# -- the first signal -----------------------------------------------------------------------

ONCE = [
    # the signal, whether it is sent to the process group, workers, when
    (TERM, False, 0, {"point": "on_grads_reset", "step": 2}),
    pytest.param(INT, False, 0, {"point": "on_batch_begin", "step": 0}, marks=IN_SOAK),
    pytest.param(
        TERM, False, 0, {"point": "on_epoch_begin", "step": 4, "desc": "valid"}, marks=IN_SOAK
    ),
    (INT, False, 0, {"point": "on_forward_pass", "step": 8, "desc": "valid", "batch": 3}),
    (TERM, False, 0, {"point": "on_safe_point", "step": 9}),
    pytest.param(
        INT, False, 0, {"point": "checkpoint_saved", "step": 8, "desc": "valid"}, marks=IN_SOAK
    ),
    (TERM, True, 2, {"point": "on_backward_pass", "step": 1}),
    pytest.param(INT, True, 2, {"point": "on_optim_step", "step": 6}, marks=IN_SOAK),
    pytest.param(TERM, True, 2, {"point": "on_batch_end", "step": 4}, marks=IN_SOAK),
    pytest.param(
        INT,
        True,
        2,
        {"point": "on_loss_compute", "step": 4, "desc": "valid", "batch": 1},
        marks=IN_SOAK,
    ),
    (TERM, True, 2, {"point": "on_forward_pass", "step": 8, "desc": "valid", "batch": 1}),
]


@pytest.mark.parametrize(("number", "to_group", "n_workers", "pause"), ONCE)
def test_first_signal_is_obeyed_at_the_next_safe_point(
    start, tmp_path, reference, number, to_group, n_workers, pause
):
    """Whenever a signal comes, the run saves at the safe point after it and ends."""
    data = {"n_workers": n_workers, "options": {"keep": None}}
    run = ended_by(start, number, to_group=to_group, pause=pause, **data)
    check_ended_as_documented(run, number)
    check_nothing_is_lost(start, tmp_path, run, reference(), **data)


@pytest.mark.parametrize("number", [TERM, INT])
def test_first_signal_ends_the_process_and_its_workers(start, tmp_path, reference, number):
    """A script with workers ends by itself after the signal, without further help."""
    pause = {"point": "on_batch_begin", "step": 1}
    ending = {"naturally": True, "limit": 10}
    run = ended_by(start, number, to_group=True, pause=pause, n_workers=2, **ending)
    check_ended_as_documented(run, number)
    check_nothing_is_lost(start, tmp_path, run, reference())


def test_first_signal_spares_workers_that_were_spawned(start, tmp_path, reference):
    """Workers that are new interpreters do not die of a signal to the group either."""
    pause = {"point": "on_batch_begin", "step": 1}
    run = ended_by(start, TERM, to_group=True, pause=pause, n_workers=2, context="spawn")
    check_ended_as_documented(run, TERM)
    check_nothing_is_lost(start, tmp_path, run, reference("spawn"), context="spawn")


def test_first_signal_says_what_will_happen(start):
    """After ctrl-C a message says at once what comes next."""
    run = ended_by(start, INT, pause={"point": "on_batch_begin", "step": 1})
    assert "SIGINT: ending at the next safe point. A second one acts at once\n" in run.errors


def test_first_signal_is_obeyed_where_the_message_cannot_be_written(start):
    """`python script.py 2>&1 | tee log`, where ctrl-C has ended `tee` first, still saves."""
    run = ended_by(start, TERM, run="train_with_closed_stderr")
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


def test_an_order_that_cannot_be_repeated_resumes_from_its_last_epoch(start, tmp_path, reference):
    """Where nothing repeats the order of data, the run ends at once and says what is lost."""
    pause = {"point": "on_batch_begin", "step": 5}
    run = ended_by(start, TERM, pause=pause, shuffle=True)
    check_ended_as_documented(run, TERM)
    assert ["000001-epoch-1-step-4"] == run.announced()
    assert "nothing repeats the order of these data" in run.errors
    assert "sampler=SeededSampler(dataset) in place of shuffle=True" in run.errors
    assert "SIGTERM ended the run; the newest is " in run.errors
    assert reference(shuffle=True) == start(shuffle=True).bits()


def test_signal_after_the_last_safe_point_is_obeyed_too(start):
    """A signal after the last safe point ends the script when training ends."""
    pause = {"point": "on_train_end", "step": 12, "desc": "valid"}
    run = ended_by(start, TERM, run="train_and_continue", pause=pause)
    assert "the script continues" not in run.said
    assert 143 == run.status


@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("options", [{}, {"every": 4}, {"asynchronous": True}], ids=str)
def test_a_validation_is_ended_within_its_batch(start, tmp_path, number, options):
    """A17: what is saved is the safe point before it, from which the run ends in the same bits."""
    folder = str(tmp_path / "full")
    bits = start("train_with_averages", directory=folder).bits()
    run = start("interrupt_validation", signal_name=number.name, **options)
    assert STATUS[number] == run.end(), run.errors
    assert "batches after 0" in run.said
    assert ["000001-epoch-1-step-4"] == run.announced()
    assert {"run is left", f"exception {RAISED[number]}"} <= set(run.said)
    assert 0 == main([str(tmp_path / "saved")])
    manifest = json.loads((tmp_path / "saved" / run.announced()[0] / "manifest.json").read_text())
    assert ("due" if "every" in options else "signal") == manifest["reason"]
    assert bits == start("train_with_averages").bits()


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"asynchronous": True}], ids=str)
def test_a_validation_in_mid_epoch_is_ended_within_its_batch(start, tmp_path, options):
    """A17: the run resumes at the safe point of the validation, and makes it from its start."""
    full = start("train_with_averages", directory=str(tmp_path / "full"), steps=3)
    bits = full.bits()
    assert "validated [3, 4, 6, 8, 9, 12]" in full.said
    run = start("interrupt_validation", steps=3, **options)
    assert STATUS[TERM] == run.end(), run.errors
    assert "batches after 0" in run.said
    assert ["000001-epoch-0-step-3"] == run.announced()
    again = start("train_with_averages", steps=3)
    assert bits == again.bits()
    assert "validated [3, 4, 6, 8, 9, 12]" in again.said


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_preempted_run_ends_with_one_line(start, tmp_path, number):
    """A19: what was saved, and how to resume; no traceback, but the status of the signal."""
    program = tmp_path / "script.py"
    program.write_text(SCRIPT)
    run = start("run_script", path=str(program), number=int(number), naturally=True)
    assert STATUS[number] == run.end(), run.errors
    saved = tmp_path / "saved" / "000001-epoch-0-step-2"
    expected = [
        "",
        f"{number.name}: ending at the next safe point. A second one acts at once",
        f"checkpoint: {number.name} ended the run; saved {saved}. Start the same script again to "
        "resume",
    ]
    assert expected == run.errors.splitlines()


SCRIPT = """
import signal, sys
from ttl_checkpoint import Checkpoint
from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.testing import ComponentConformance, Step

class Signal(LoopComponent):
    def on_batch_begin(self, loop):
        if loop.global_step == 1:
            signal.raise_signal(int(sys.argv[2]))

components = [Step(), Signal(), Checkpoint(sys.argv[1])]
data = ComponentConformance.make_data(3)
TrainTestLoop(ComponentConformance.make_model(), components, data).train(2)
"""


# -- the second signal ----------------------------------------------------------------------

TWICE = [
    # the first signal, the second one, whether they are sent to the group, workers, step
    (TERM, TERM, False, 0, 5),
    (INT, INT, False, 0, 5),
    (TERM, TERM, True, 2, 6),
    (INT, INT, True, 2, 6),
    pytest.param(TERM, INT, False, 0, 10, marks=IN_SOAK),
    pytest.param(INT, TERM, True, 2, 1, marks=IN_SOAK),
]


@pytest.mark.parametrize(("first", "second", "to_group", "n_workers", "step"), TWICE)
def test_second_signal_acts_at_once(
    start, tmp_path, reference, first, second, to_group, n_workers, step
):
    """A second signal ends the run before any safe point, and what was announced is there."""
    data = {"n_workers": n_workers, "options": {"keep": None}}
    pause = {"point": "on_forward_pass", "step": step, "sleeps": True}
    run = start(pause=pause, **data)
    run.until("here")
    run.send(first, to_group)
    run.proceed()
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
    """Workers that a second SIGTERM has orphaned end too."""
    os.mkfifo(tmp_path / "alive")
    ours = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        pause = {"point": "on_forward_pass", "step": 1, "sleeps": True}
        run = start(pause=pause, n_workers=2, alive=str(tmp_path / "alive"))
        run.until("here")
        run.send(TERM, to_group=True)
        run.proceed()
        run.until("asleep")
        assert ([], [], []) == select.select([ours], [], [], 0)  # it is still open
        run.send(TERM, to_group=True)
        assert -TERM == run.end()
        ended, _, _ = select.select([ours], [], [], 20)
        assert [ours] == ended
    finally:
        os.close(ours)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_were_starting_end_after_a_kill(start, tmp_path, context):
    """C12: a worker whose parent is killed before it has started ends by itself."""
    os.mkfifo(tmp_path / "alive")
    ours = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        run = start("train_with_slow_workers", alive=str(tmp_path / "alive"), context=context)
        assert [ours] == select.select([ours], [], [], LIMIT)[0]
        assert b"1" == os.read(ours, 1)
        os.kill(run.pid, signal.SIGKILL)
        assert [ours] == select.select([ours], [], [], 20)[0]
        assert b"" == os.read(ours, 1)  # no process has it open
    finally:
        os.close(ours)


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_a_worker_whose_parent_died_while_it_was_starting_ends(monkeypatch, start_method):
    """C12: torch's own check would compare with the parent that it has by then."""
    init = _ProtectedInit(lambda worker_id: None, RawValue(ctypes.c_bool, False), start_method)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    parent = SimpleNamespace(pid=os.getppid(), is_alive=lambda: True)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    init(0)
    assert [] == ended
    parent.is_alive = lambda: start_method == "fork"  # a forked one always believes that
    parent.pid = -1
    init(0)
    assert [1, 1] == ended  # before and after its own function


# -- other handlers -------------------------------------------------------------------------


def test_earlier_handlers_are_called_too_and_restored(start):
    """An earlier handler is called at once, and handles the signal again after train()."""
    run = ended_by(start, TERM, run="train_with_handlers")
    assert ["earlier handler 15", "safe 2 train"] == run.since("here")[:2]
    assert "restored True" == run.said[-1]


def test_ignored_signals_stay_ignored(start):
    """A run that ignores ctrl-C, as background jobs of scripts do, is not ended by it."""
    run = ended_by(start, INT, run="train_with_handlers", ignoring=True)
    assert {"train ends", "restored True"} <= set(run.said)


@pytest.mark.parametrize(("n_others", "disabled"), [(0, False), (1, False), (0, True)])
def test_handlers_are_restored_after_a_run(start, tmp_path, n_others, disabled):
    """After train() signals are handled as before, with one saver or more, also enabled late."""
    others = [str(tmp_path / f"other-{i}") for i in range(n_others)]
    run = start("train_to_the_end", others=others, disabled=disabled)
    assert 0 == run.end(), run.errors
    assert ["restored True"] == run.said[1:]


@pytest.mark.parametrize("kind", ["train_in_thread", "train_without_signals"])
def test_handlers_are_not_changed(start, kind):
    """Outside the main thread, and with signals=False, no handler is set and training works."""
    run = start(kind)
    assert 0 == run.end(), run.errors
    assert "changed False" in run.said


def test_training_in_a_thread_leads_to_the_same_bits(start, reference):
    """A run in a thread, with workers, ends as one in the main thread does."""
    assert reference() == start("train_in_thread").bits()


def test_processes_of_components_can_be_terminated(start):
    """A process that a component forks in training can be terminated."""
    run = start("train_with_processes")
    assert 0 == run.end(), run.errors
    assert f"child {-TERM}" in run.said


# -- the same with naive savers -------------------------------------------------------------


def test_naive_saver_loses_what_was_done(start, tmp_path):
    """A plain torch.save at the ends of epochs loses the steps since, and no wrapper is left."""
    pause = {"point": "on_batch_begin", "step": 6}
    run = ended_by(start, TERM, saver="naive", pause=pause, options={"every": 1000})
    with pytest.raises(AssertionError):
        check_ended_as_documented(run, TERM)
    state = torch.load(tmp_path / "saved" / "last.pt")
    assert ([], 4) == (run.since("here"), state["position"]["global_step"])


def test_naive_handler_loses_its_workers(start):
    """A handler that sets a flag does not keep workers from dying of a signal to the group."""
    run = start(saver="flag", n_workers=2, pause={"point": "on_batch_begin", "step": 1})
    run.until("here")
    run.send(TERM, to_group=True)
    time.sleep(0.5)  # in which the workers die
    run.proceed()
    run.end()
    with pytest.raises(AssertionError):
        check_ended_as_documented(run, TERM)
    assert "DataLoader worker" in run.errors
