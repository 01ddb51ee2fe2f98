"""Runs that are killed: nothing that was announced is lost, and they end in the same bits."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ttl_checkpoint.store import verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a nursery forks its runs")

KEEP = 3
OPTIONS = {"every": 2, "keep": KEEP}
N_KILLS_A_RUN = 8
KILLED, ENDED = -9, 0


class Nursery:
    """Ask for runs, and wait for each to end or to be killed."""

    def __init__(self, process):
        self._process = process
        self._receive()

    def run(self, folder, saver="checkpoint", options=None, **request):
        """Run in a folder; return the status that it ended with, and the seconds it took."""
        if options is None:
            options = OPTIONS if saver == "checkpoint" else {}
        request |= {"folder": str(folder), "saver": saver, "options": options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._receive()
        return answer["status"], answer["seconds"]

    def _receive(self):
        line = self._process.stdout.readline()
        assert line, f"the nursery has ended with status {self._process.wait()}"
        return json.loads(line)


@pytest.fixture(scope="module")
def nursery():
    """Return a nursery."""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("nursery.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **one, "CUDA_VISIBLE_DEVICES": ""},
    )
    with process:  # which closes its input, and waits
        yield Nursery(process)


@pytest.fixture(scope="module")
def expected_bits(nursery, tmp_path_factory):
    """Return the bits that a run ends in which nothing interrupts and nobody saves."""
    folder = tmp_path_factory.mktemp("whole")
    status, _ = nursery.run(folder, saver=None)
    assert status == ENDED, log_of(folder)
    return json.loads((folder / "bits.json").read_text())


# -- what has to hold ------------------------------------------------------------------------


def read_ledger(folder):
    """Return what a run has noted of its saves and its starts."""
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return []


def log_of(folder):
    """Return the end of what a run has printed."""
    return (folder / "log.txt").read_text()[-3000:]


def names_in(folder):
    """Return the names of what is in the directory of checkpoints, or nothing."""
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in (folder / "checkpoints").iterdir()} - {".lock"}
    return set()


def load(path):
    """Load or verify what is under the name of a checkpoint, as far as that is possible."""
    if path.is_dir():
        return verify(path)
    torch.load(path, weights_only=True)
    return {"best": None}


def check_nothing_lost(folder):
    """Assert that all that has to be there is there, and whole.

    That is: whatever has the name of a checkpoint, announced or not, is whole; the newest ones and
    the best one of all that ever were are there; and no start went on from before what had been
    announced by then, or forgot how good the best was.
    """
    ledger = read_ledger(folder)
    there = {}
    for name in sorted(name for name in names_in(folder) if not name.startswith(".")):
        try:
            there[name] = load(folder / "checkpoints" / name)
        except (OSError, RuntimeError, EOFError) as error:
            raise AssertionError(f"{name} is not whole: {error}") from error
    announced = {note["saved"]: note for note in ledger if "saved" in note}
    ever = {**announced, **there}
    newest = sorted(ever)[-KEEP:]
    assert set(newest) <= there.keys(), f"of the newest {newest} only {list(there)} are left"
    rated = {name: note["best"] for name, note in ever.items() if note["best"] is not None}
    best = [min(rated, key=rated.get)] if rated else []
    assert set(best) <= there.keys(), f"the best one, {best}, is not among {list(there)}"
    bests = [note["best"] for note in announced.values() if note["best"] is not None]
    assert sorted(set(bests), reverse=True) == bests, "what is not better was taken to be the best"
    step = 0
    for note in ledger:
        step = max(step, note.get("step", 0))
        assert note.get("begun", step) >= step, f"went back before step {step}: {ledger}"


def check_end(folder, expected_bits):
    """Assert that a run has ended well: the same bits, nothing lost, no junk."""
    check_nothing_lost(folder)
    actual = json.loads((folder / "bits.json").read_text())
    assert expected_bits == actual, f"the bits differ\n{log_of(folder)}"
    junk = [name for name in names_in(folder) if not name[0].isdigit() and name != "last.pt"]
    assert [] == junk, "junk is left"


# -- at random times -------------------------------------------------------------------------


def unfinished(folder):
    """Return what only a kill in the middle of a save leaves: parts, and what is not announced."""
    announced = {note.get("saved") for note in read_ledger(folder)}
    paths = [folder / "checkpoints" / name for name in names_in(folder) - announced]
    return {(path.name, path.stat().st_mtime_ns) for path in paths}


def kill_at_random(nursery, folder, expected_bits, n_kills, **request):
    """Start runs, kill each a few times and let it end, until there were so many kills.

    Returns:
        How many runs there were, how many kills came in the middle of a save, and how many saves
        were announced.
    """
    status, usual_seconds = nursery.run(make_folder(folder, "usual"), **request)
    assert status == ENDED, log_of(folder / "usual")
    seed = random.Random(json.dumps(request))
    n_killed = n_in_save = n_announced = n_runs = 0
    while n_killed < n_kills:
        run = make_folder(folder, f"run{n_runs}")
        n_runs += 1
        times, before = [], set()
        for _ in range(min(N_KILLS_A_RUN, n_kills - n_killed)):
            times.append(seed.random() ** 2 * usual_seconds)  # rather early: it has to get on
            status, _ = nursery.run(run, after=times[-1], **request)
            if status != KILLED:
                break
            n_killed += 1
            check_nothing_lost(run)
            left = unfinished(run)
            n_in_save += bool(left - before)
            before = left
        else:
            status, _ = nursery.run(run, **request)
        assert status == ENDED, f"a run did not end well, after kills at {times}\n{log_of(run)}"
        check_end(run, expected_bits)
        n_announced += sum("saved" in note for note in read_ledger(run))
        shutil.rmtree(run)
    return n_runs, n_in_save, n_announced


def make_folder(folder, name):
    """Return a new folder."""
    (folder / name).mkdir()
    return folder / name


@pytest.mark.parametrize(
    "n_kills",
    # in each of four cases
    [pytest.param(25, id="100"), pytest.param(250, id="1000", marks=pytest.mark.soak)],
)
@pytest.mark.parametrize("is_slow", [False, True], ids=["fast disk", "slow disk"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_kills_at_random_times_lose_nothing(
    nursery, tmp_path, expected_bits, asynchronous, is_slow, n_kills
):
    """However often and whenever a run is killed, what it announced is there, and its end same."""
    options = {**OPTIONS, "asynchronous": asynchronous}
    begun = time.perf_counter()
    n_runs, n_in_save, n_announced = kill_at_random(
        nursery, tmp_path, expected_bits, n_kills, options=options, is_slow=is_slow
    )
    print(
        f"\n{'async' if asynchronous else 'sync'}, {'slow' if is_slow else 'fast'} disk: "
        f"{n_kills} kills of {n_runs} runs, {n_in_save} of them in a save; {n_announced} "
        f"checkpoints announced, none lost; {time.perf_counter() - begun:.1f} s"
    )
    assert n_in_save > 0


def test_kills_at_random_times_break_a_file_written_in_place(nursery, tmp_path, expected_bits):
    """The same procedure finds the file broken that a naive saver writes to its place."""
    with pytest.raises(AssertionError, match="not whole"):
        kill_at_random(nursery, tmp_path, expected_bits, 25, saver="file", is_slow=True)


# -- at each call ----------------------------------------------------------------------------


def make_base(nursery, folder, saver="checkpoint"):
    """Return the folder of a run that was killed when about to save for the last time but one."""
    whole, base = make_folder(folder, "whole"), make_folder(folder, "base")
    status, _ = nursery.run(whole, saver)
    assert status == ENDED, log_of(whole)
    n_saves = len(read_calls(whole)) - 1
    status, _ = nursery.run(base, saver, kill=[n_saves - 1, 1, False])
    assert status == KILLED, log_of(base)
    return base


def read_calls(folder):
    """Return the calls, name and path, before the first save of a start, and those of each."""
    return json.loads((folder / "calls.json").read_text())


def kill_at_each_call(
    nursery, base, expected_bits, save=1, halves=(False, True), one_write_in=1, **request
):
    """Go on from a base, be killed at a call of a save, start again and end; at each of its calls.

    A kill at a write leaves nothing but a part of a file, so the start after it gets as far as the
    next one, and is killed there; every few of them a run ends.

    Returns:
        The names of the calls, and how many kills there were.
    """
    run = base.with_name("run")
    kill_and_end(nursery, base, run, expected_bits, (), **request)
    names = [name for name, _ in read_calls(run)[save]]
    rows = [[]]
    for n, name in enumerate(names, 1):
        if name != "write":
            rows += [[(save, n, False)], []]
        elif n % one_write_in == 0:
            rows[-1] += [(save, n, is_half) for is_half in halves]
            rows += [[]] if len(rows[-1]) >= N_KILLS_A_RUN else []
    for kills in filter(None, rows):
        kill_and_end(nursery, base, run, expected_bits, kills, **request)
    return names, sum(map(len, rows))


def kill_and_end(nursery, base, run, expected_bits, kills, **request):
    """Go on from a copy of a folder, be killed at some calls, and end."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(base, run)
    for kill in kills:
        status, _ = nursery.run(run, kill=kill, **request)
        assert status == KILLED, f"{kill} of {kills} did not come\n{log_of(run)}"
        check_nothing_lost(run)
    status, _ = nursery.run(run, **request)
    assert status == ENDED, f"after {kills} no run goes on\n{log_of(run)}"
    check_end(run, expected_bits)


@pytest.mark.parametrize(
    ("asynchronous", "one_write_in"),
    [
        pytest.param(False, 1, id="sync"),
        pytest.param(True, 8, id="async, some writes"),
        pytest.param(True, 1, id="async", marks=pytest.mark.soak),
    ],
)
def test_a_kill_at_any_call_of_a_save_harms_nothing(
    nursery, tmp_path, expected_bits, asynchronous, one_write_in
):
    """Killed before any call of a save or half-way through a write, a run ends in the same bits."""
    options = {**OPTIONS, "asynchronous": asynchronous}
    base = make_base(nursery, tmp_path)
    names, n_killed = kill_at_each_call(
        nursery, base, expected_bits, one_write_in=one_write_in, options=options
    )
    print(f"\n{n_killed} kills at the {len(names)} calls of a save")
    kinds = {"mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir"}
    assert kinds == set(names)


@pytest.mark.parametrize(
    ("saver", "is_half", "what"),
    [
        pytest.param("file", False, "last.pt is not whole", id="file, before a write"),
        pytest.param("file", True, "last.pt is not whole", id="file, in a write"),
        pytest.param("state", False, "the bits differ", id="state"),
    ],
)
def test_a_kill_at_some_call_of_a_save_harms_a_naive_one(
    nursery, tmp_path, expected_bits, saver, is_half, what
):
    """The same procedure finds a file half-written, and bits that were never saved."""
    base = make_base(nursery, tmp_path, saver)
    with pytest.raises(AssertionError, match=what):
        kill_at_each_call(nursery, base, expected_bits, saver=saver, halves=[is_half])


def test_a_kill_at_any_call_of_clearing_up_harms_nothing(nursery, tmp_path, expected_bits):
    """Killed again while it clears up after a kill, a run still goes on to the same bits."""
    base = make_base(nursery, tmp_path)
    assert nursery.run(base, kill=[1, 100, False])[0] == KILLED
    assert any(name.startswith(".tmp-") for name in names_in(base))
    names, _ = kill_at_each_call(nursery, base, expected_bits, save=0)
    assert {"mkdir", "open", "unlink", "close", "rmdir"} <= set(names)


# -- what no kill shows ----------------------------------------------------------------------


def check_synced(nursery, folder, saver="checkpoint"):
    """Assert of each save of a run that it would survive a loss of power as it survives a kill.

    What was written is on the disk, and so is the directory that it is in, before that gets its
    name; and the name is, before anything older is removed and before the save ends.
    """
    status, _ = nursery.run(folder, saver)
    assert status == ENDED, log_of(folder)
    saves = read_calls(folder)[1:]
    assert len(saves) > 10
    for calls in saves:
        dirty = set()
        for name, path in calls:
            path = Path(path)
            if name == "write":
                dirty |= {path, path.parent}
            elif name == "fsync":
                dirty.discard(path)
            elif name in ("rename", "replace"):
                assert set() == dirty, f"not synced before {path} is renamed"
                dirty |= {path.parent} if path.name.startswith(".tmp-") else set()
        assert set() == dirty, "not synced"


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(nursery, tmp_path):
    """Files are synced before their directory, that before its name, that before old ones go."""
    check_synced(nursery, tmp_path)


def test_a_naive_file_is_not_synced(nursery, tmp_path):
    """The same look at a file that is written in place finds that nobody has synced it."""
    with pytest.raises(AssertionError, match="not synced"):
        check_synced(nursery, tmp_path, "file")
