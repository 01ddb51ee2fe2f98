"""Runs that are killed lose nothing that was announced, and end in the same bits."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import kill_server
import pytest
import torch
from ttl_checkpoint.reading import verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a server forks the runs")

KEEP = 3
OPTIONS = {"every": 2, "keep": KEEP}
N_KILLS_A_RUN = 8
KILLED, ENDED = -9, 0


class KillServer:
    """A process with `kill_server.py`, which forks runs and kills them, one at a time."""

    def __init__(self, process):
        self._process = process
        self._receive()  # when it is ready

    def run(self, folder, saver="checkpoint", options=None, **request):
        """Run in a folder; return its exit status, and how many seconds it took."""
        if options is None:
            options = OPTIONS if saver == "checkpoint" else {}
        request |= {"folder": str(folder), "saver": saver, "options": options}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._receive()
        return answer["status"], answer["seconds"]

    def _receive(self):
        line = self._process.stdout.readline()
        assert line, f"the server has ended with status {self._process.wait()}"
        return json.loads(line)


@pytest.fixture(scope="module")
def server():
    """Return a server that forks runs."""
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, kill_server.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **one, "CUDA_VISIBLE_DEVICES": ""},
    )
    with process:  # which closes its input, and waits
        yield KillServer(process)


@pytest.fixture(scope="module")
def expected_bits(server, tmp_path_factory):
    """Return the bits of a run that neither is interrupted nor saves."""
    folder = tmp_path_factory.mktemp("whole")
    status, _ = server.run(folder, saver=None)
    assert status == ENDED, log_of(folder)
    return json.loads((folder / "bits.json").read_text())


# -- checks ----------------------------------------------------------------------------------


def read_ledger(folder):
    """Return the records of a run about its saves and its starts."""
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return []


def log_of(folder):
    """Return the end of the output of a run."""
    return (folder / "log.txt").read_text()[-3000:]


def names_in(folder):
    """Return the names in the directory of checkpoints; none if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in (folder / "checkpoints").iterdir()} - {".lock"}
    return set()


def check_intact(path):
    """Verify a checkpoint, or load a naive one, and return its manifest."""
    if path.is_dir():
        return verify(path)
    torch.load(path, weights_only=True)
    return {"best": None}


def check_nothing_lost(folder):
    """Assert that all checkpoints are there that have to be, and that they are intact.

    That is: each file with the name of a checkpoint, announced or not, is intact; the newest ones
    and the best one of all that ever existed are there; and no start resumed from a step before
    what had been announced by then, or forgot the best value.
    """
    ledger = read_ledger(folder)
    there = {}
    for name in sorted(name for name in names_in(folder) if not name.startswith(".")):
        try:
            there[name] = check_intact(folder / "checkpoints" / name)
        except (OSError, RuntimeError, EOFError) as error:
            raise AssertionError(f"{name} is not intact: {error}") from error
    announced = {record["saved"]: record for record in ledger if "saved" in record}
    ever = {**announced, **there}
    newest = sorted(ever)[-KEEP:]
    assert set(newest) <= there.keys(), f"of the newest {newest} only {list(there)} are left"
    rated = {name: record["best"] for name, record in ever.items() if record["best"] is not None}
    best = [min(rated, key=rated.get)] if rated else []
    assert set(best) <= there.keys(), f"the best one, {best}, is not among {list(there)}"
    bests = [record["best"] for record in announced.values() if record["best"] is not None]
    assert sorted(set(bests), reverse=True) == bests, "a worse value was taken to be the best"
    step = 0
    for record in ledger:
        step = max(step, record.get("step", 0))
        assert record.get("begun", step) >= step, f"went back before step {step}: {ledger}"


def check_end(folder, expected_bits):
    """Assert that a run has ended well: the same bits, nothing lost, nothing left over."""
    check_nothing_lost(folder)
    actual = json.loads((folder / "bits.json").read_text())
    assert expected_bits == actual, f"the bits differ\n{log_of(folder)}"
    others = [name for name in names_in(folder) if not name[0].isdigit() and name != "last.pt"]
    assert [] == others, "something is left over"


# -- at random times -------------------------------------------------------------------------


def unfinished(folder):
    """Return what a kill in the middle of a save leaves: incomplete or unannounced checkpoints."""
    announced = {record.get("saved") for record in read_ledger(folder)}
    paths = [folder / "checkpoints" / name for name in names_in(folder) - announced]
    return {(path.name, path.stat().st_mtime_ns) for path in paths}


def kill_at_random(server, folder, expected_bits, n_kills, **request):
    """Start runs, kill each a few times and let it end, until there were `n_kills` kills.

    Returns:
        The number of runs, of kills in the middle of a save, and of saves that were announced.
    """
    status, usual_seconds = server.run(make_folder(folder, "usual"), **request)
    assert status == ENDED, log_of(folder / "usual")
    seed = random.Random(json.dumps(request))
    n_killed = n_in_save = n_announced = n_runs = 0
    while n_killed < n_kills:
        run = make_folder(folder, f"run{n_runs}")
        n_runs += 1
        times, before = [], set()
        for _ in range(min(N_KILLS_A_RUN, n_kills - n_killed)):
            # squared, so that most kills are early, and each start makes little progress
            times.append(seed.random() ** 2 * usual_seconds)
            status, _ = server.run(run, after=times[-1], **request)
            if status != KILLED:
                break
            n_killed += 1
            check_nothing_lost(run)
            left = unfinished(run)
            n_in_save += bool(left - before)
            before = left
        else:
            status, _ = server.run(run, **request)
        assert status == ENDED, f"a run did not end well, after kills at {times}\n{log_of(run)}"
        check_end(run, expected_bits)
        n_announced += sum("saved" in record for record in read_ledger(run))
        shutil.rmtree(run)
    return n_runs, n_in_save, n_announced


def make_folder(folder, name):
    """Return a new folder."""
    (folder / name).mkdir()
    return folder / name


@pytest.mark.parametrize(
    "n_kills",
    [pytest.param(25, id="100"), pytest.param(250, id="1000", marks=pytest.mark.soak)],
)
@pytest.mark.parametrize("is_slow", [False, True], ids=["fast disk", "slow disk"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_kills_at_random_times_lose_nothing(
    server, tmp_path, expected_bits, asynchronous, is_slow, n_kills
):
    """However often and whenever a run is killed, nothing announced is lost, and its bits are same.

    The kills are 100 in the four cases together, and 1000 in the soak.
    """
    options = {**OPTIONS, "asynchronous": asynchronous}
    start = time.perf_counter()
    n_runs, n_in_save, n_announced = kill_at_random(
        server, tmp_path, expected_bits, n_kills, options=options, is_slow=is_slow
    )
    print(
        f"\n{'async' if asynchronous else 'sync'}, {'slow' if is_slow else 'fast'} disk: "
        f"{n_kills} kills of {n_runs} runs, {n_in_save} of them in a save; {n_announced} "
        f"checkpoints announced, none lost; {time.perf_counter() - start:.1f} s"
    )
    assert n_in_save > 0 or not is_slow  # on a fast disk a save is over before most kills


def test_kills_at_random_times_break_a_file_written_in_place(server, tmp_path, expected_bits):
    """The same procedure finds the broken file of a naive saver."""
    with pytest.raises(AssertionError, match="not intact"):
        kill_at_random(server, tmp_path, expected_bits, 25, saver="file", is_slow=True)


# -- at each call ----------------------------------------------------------------------------


def make_base(server, folder, saver="checkpoint"):
    """Return the folder of a run that was killed at the first call of its last save but one."""
    whole, base = make_folder(folder, "whole"), make_folder(folder, "base")
    status, _ = server.run(whole, saver)
    assert status == ENDED, log_of(whole)
    n_saves = len(read_calls(whole)) - 1
    status, _ = server.run(base, saver, kill=[n_saves - 1, 1, False])
    assert status == KILLED, log_of(base)
    return base


def read_calls(folder):
    """Return the calls, name and path, before the first save of a start, and those of each save."""
    return json.loads((folder / "calls.json").read_text())


def kill_at_each_call(
    server, base, expected_bits, save=1, halves=(False, True), one_write_in=1, **request
):
    """Resume from a base, kill at a call of a save, start again and let it end; at each such call.

    Until the checkpoint is renamed, a kill leaves only a temporary directory: the next start comes
    to the same save, and is killed at its next call. After a few kills the run is left to end.

    Args:
        server: what forks the runs.
        base: the folder of a run that was killed.
        expected_bits: the bits in which the run has to end.
        save: the number of the save in the resumed run; 0 for what comes before the first one.
        halves: whether writes are half done when the kill comes; once for each of these.
        one_write_in: of the writes to one file between its first and its last, kill at each n-th.
        **request: further arguments of a run.

    Returns:
        The names of the calls, and the number of kills.
    """
    run = base.with_name("run")
    kill_and_end(server, base, run, expected_bits, (), **request)
    calls = [tuple(call) for call in read_calls(run)[save]]
    names = [name for name, _ in calls]
    n_repeatable = 1 + names.index("rename") if save and "rename" in names else 0
    runs = [[]]  # the kills of each
    for n, call in enumerate(calls, 1):
        is_first_or_last = call not in calls[: n - 1] or call not in calls[n:]
        if call[0] == "write" and not is_first_or_last and n % one_write_in:
            continue
        is_repeatable = n <= n_repeatable or call[0] == "write"
        if not is_repeatable or len(runs[-1]) >= N_KILLS_A_RUN:
            runs.append([])
        runs[-1] += [(save, n, half) for half in (halves if call[0] == "write" else [False])]
    for kills in filter(None, runs):
        kill_and_end(server, base, run, expected_bits, kills, **request)
    return names, sum(map(len, runs))


def kill_and_end(server, base, run, expected_bits, kills, **request):
    """Resume in a copy of a folder, kill at some calls, start again each time, and let it end."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(base, run)
    for kill in kills:
        status, _ = server.run(run, kill=kill, **request)
        assert status == KILLED, f"{kill} of {kills} did not happen\n{log_of(run)}"
        check_nothing_lost(run)
    status, _ = server.run(run, **request)
    assert status == ENDED, f"after {kills} no run resumes\n{log_of(run)}"
    check_end(run, expected_bits)


@pytest.mark.parametrize(
    ("asynchronous", "one_write_in"),
    [
        pytest.param(False, 16, id="sync, some writes"),
        pytest.param(True, 32, id="async, some writes"),
        pytest.param(False, 1, id="sync", marks=pytest.mark.soak),
        pytest.param(True, 1, id="async", marks=pytest.mark.soak),
    ],
)
def test_a_kill_at_any_call_of_a_save_harms_nothing(
    server, tmp_path, expected_bits, asynchronous, one_write_in
):
    """Killed before a call of a save, or half-way through a write, a run ends in the same bits.

    A save writes about a hundred times to one file; the soak kills at each of them.
    """
    options = {**OPTIONS, "asynchronous": asynchronous}
    base = make_base(server, tmp_path)
    names, n_killed = kill_at_each_call(
        server, base, expected_bits, one_write_in=one_write_in, options=options
    )
    print(f"\n{n_killed} kills at the {len(names)} calls of a save")
    kinds = {"mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir"}
    assert kinds == set(names)


@pytest.mark.parametrize(
    ("saver", "is_half", "what"),
    [
        pytest.param("file", False, "last.pt is not intact", id="file, before a write"),
        pytest.param("file", True, "last.pt is not intact", id="file, in a write"),
        pytest.param("state", False, "the bits differ", id="state"),
    ],
)
def test_a_kill_at_some_call_of_a_save_harms_a_naive_one(
    server, tmp_path, expected_bits, saver, is_half, what
):
    """The same procedure finds a half-written file, and bits that were never saved."""
    base = make_base(server, tmp_path, saver)
    with pytest.raises(AssertionError, match=what):
        kill_at_each_call(server, base, expected_bits, saver=saver, halves=[is_half])


def test_a_kill_at_any_call_of_the_cleanup_harms_nothing(server, tmp_path, expected_bits):
    """Killed again while it cleans up after a kill, a run still resumes to the same bits."""
    base = make_base(server, tmp_path)
    assert server.run(base, kill=[1, 4, False])[0] == KILLED
    assert any(name.startswith(".tmp-") for name in names_in(base))
    names, _ = kill_at_each_call(server, base, expected_bits, save=0)
    assert {"mkdir", "open", "unlink", "close", "rmdir"} <= set(names)


# -- loss of power ---------------------------------------------------------------------------


def check_synced(server, folder, saver="checkpoint"):
    """Assert that each save of a run would survive a loss of power as it survives a kill.

    Files and their directory are on the disk before the directory is renamed; its name is on the
    disk before anything older is removed, and before the save ends.
    """
    status, _ = server.run(
        folder, saver, {"every": 1, "keep": KEEP} if saver == "checkpoint" else {}
    )
    assert status == ENDED, log_of(folder)
    saves = read_calls(folder)[1:]
    assert len(saves) > 8
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


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(server, tmp_path):
    """Files are synced, then their directory, then its name, and only then old ones removed."""
    check_synced(server, tmp_path)


def test_a_naive_file_is_not_synced(server, tmp_path):
    """The same check finds that a file of a naive saver is not synced."""
    with pytest.raises(AssertionError, match="not synced"):
        check_synced(server, tmp_path, "file")
