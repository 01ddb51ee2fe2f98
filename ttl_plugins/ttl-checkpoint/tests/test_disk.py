"""Disks that are full, read-only or missing, and directories with another writer."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from naive_savers import NaiveFileSaver
from ttl_checkpoint import Checkpoint, CheckpointError, errors
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.files import check_free_space
from ttl_checkpoint.lock import DirectoryLock

from ttl_core import LoopComponent, RunError, TrainTestLoop
from ttl_core.testing import ComponentConformance, Step

resource = pytest.importorskip("resource", reason="needs limits of a POSIX system")
fcntl = pytest.importorskip("fcntl", reason="needs locks of a POSIX system")

N_STEPS = 3  # of an epoch
FIRST, SECOND, THIRD = (f"{i:06}-epoch-{i}-step-{N_STEPS * i}" for i in (1, 2, 3))
LIMIT = 1 << 20  # bytes; files of pytest itself are smaller, states here are larger


class BeforeStep(LoopComponent):
    """A component that calls a function before the batch of a step; of each step if it is None."""

    def __init__(self, step, function):
        self.step = step
        self.function = function

    def on_batch_begin(self, loop):
        if self.step in (loop.global_step, None):
            self.function()


def make_loop(*components):
    """Return a loop whose state has some megabytes."""
    model = ComponentConformance.make_model()
    model.register_buffer("ballast", torch.zeros(2 * LIMIT, dtype=torch.uint8))
    data = ComponentConformance.make_data(N_STEPS)
    return TrainTestLoop(model, [*components, Step()], data)


def bits(loop):
    """Return the parameters of a model, bit for bit."""
    return [parameter.tolist() for parameter in loop.model.parameters()]


def trained(*components, n_epochs=3):
    """Train a new loop to the end and return its bits."""
    loop = make_loop(*components)
    loop.train(n_epochs)
    return bits(loop)


@pytest.fixture(scope="module")
def reference():
    """Return the bits of a run that saves nothing."""
    return trained()


def when_written(path, function):
    """Return a function that calls another one when a thread has written a checkpoint."""

    def wait_and_call():
        while not path.exists():
            time.sleep(0.01)
        time.sleep(0.1)  # in which the directory is synced
        function()

    return wait_and_call


def names_in(directory):
    """Return the names in a directory, except of the lock."""
    return sorted(set(os.listdir(directory)) - {".lock"})


# -- faults of a disk -----------------------------------------------------------------------


class Fault:
    """A fault by which a directory cannot be written to.

    Args:
        directory: the directory.
        stack: the ExitStack of the test, which ends the fault.

    Attributes:
        reason: how the error describes it.
    """

    reason = ""

    def __init__(self, directory, stack):
        self.directory = directory
        stack.callback(self.end)

    def begin(self):
        """Let saving fail from now on."""

    def end(self):
        """Let it work again."""


class SmallFiles(Fault):
    """Files cannot grow beyond a limit, as on a disk that becomes full in the middle of a write."""

    reason = "File too large"

    def begin(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, self.before[1]))

    def end(self):
        if hasattr(self, "before"):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


class FullDisk(Fault):
    """A small disk is full, though the system reports free space."""

    reason = "No space left on device"

    def __init__(self, directory, stack):
        size = f"size={4 * LIMIT}"  # for one checkpoint
        command = ["mount", "-t", "tmpfs", "-o", size, "none", str(directory)]
        try:
            mounted = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"no file system can be mounted: {error}")
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=True)
        self.patch = stack.enter_context(pytest.MonkeyPatch.context())
        super().__init__(directory, stack)

    def begin(self):
        usage = shutil.disk_usage(self.directory)
        self.patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 40))

    def end(self):
        """Make the disk larger."""
        self.patch.undo()
        subprocess.run(["mount", "-o", "remount,size=64m", str(self.directory)], check=True)


class NoFreeSpace(Fault):
    """A disk is full, and the system reports it."""

    reason = "it needs 3 MB, but 1 MB are free"

    def begin(self):
        self.usage = shutil.disk_usage
        total = namedtuple("usage", "total used free")(10**9, 999 * 10**6, 10**6)
        shutil.disk_usage = lambda path: total

    def end(self):
        if hasattr(self, "usage"):
            shutil.disk_usage = self.usage


class Immutable(Fault):
    """A directory is read-only, also for root."""

    reason = "Operation not permitted"

    def begin(self):
        try:
            subprocess.run(["chattr", "+i", self.directory], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"nothing can be made immutable: {error}")

    def end(self):
        with contextlib.suppress(OSError):
            subprocess.run(["chattr", "-i", self.directory], capture_output=True)


class NoPermission(Fault):
    """A directory is read-only for the user."""

    reason = "Permission denied"

    def begin(self):
        if os.geteuid() == 0:
            import pwd

            os.seteuid(pwd.getpwnam("nobody").pw_uid)
            if not os.access(self.directory, os.R_OK | os.X_OK, effective_ids=True):
                os.seteuid(0)
                pytest.skip("other users cannot read the directory of temporary files")
        else:
            self.directory.chmod(0o555)

    def end(self):
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            self.directory.chmod(0o755)


FAULTS = [SmallFiles, FullDisk, NoFreeSpace, Immutable, NoPermission]


@pytest.fixture
def directory():
    """Return a new directory that all users can read."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        saved = Path(folder, "saved")
        saved.mkdir()
        yield saved


@pytest.fixture
def make_fault(directory):
    """Return a function that makes a fault, which ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda kind: kind(directory, stack)


# -- in the middle of a run -----------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_one_clear_error_and_harms_nothing(
    directory, make_fault, reference, capfd, kind, asynchronous
):
    """The error says what failed, why, and what to do; the old checkpoint is resumed to the end."""
    fault = make_fault(kind)
    saving = Checkpoint(directory, asynchronous=asynchronous)
    loop = make_loop(saving, BeforeStep(N_STEPS, when_written(directory / FIRST, fault.begin)))
    with pytest.raises(CheckpointError) as caught:
        loop.train(3)
    fault.end()
    expected = (
        f"checkpoint {directory / SECOND} cannot be written: {fault.reason}. Earlier checkpoints "
        "are unharmed. Make room or fix the directory, and start the same script again; "
        "on_failure='warn' continues training without it"
    )
    assert expected == str(caught.value)
    assert [FIRST] == names_in(directory)
    assert 0 == main([str(directory)])
    assert reference == trained(Checkpoint(directory))
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize("kind", [SmallFiles, FullDisk])
def test_the_error_shows_no_errors_of_torch(directory, make_fault, kind):
    """What torch raises after a failed write is not part of what the user reads."""
    fault = make_fault(kind)
    loop = make_loop(Checkpoint(directory), BeforeStep(N_STEPS, fault.begin))
    with pytest.raises(CheckpointError) as caught:
        loop.train(3)
    fault.end()
    text = "".join(traceback.format_exception(caught.value))
    raised = re.findall(r"^([\w.]*(?:Error|Exception)\b)", text, re.MULTILINE)
    assert ["OSError", "ttl_checkpoint.errors.CheckpointError"] == raised


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_can_be_a_warning(directory, make_fault, reference, capfd, kind, asynchronous):
    """With on_failure="warn" training continues, and saving when it works again."""
    fault = make_fault(kind)
    saving = Checkpoint(directory, asynchronous=asynchronous, on_failure="warn")
    begin = BeforeStep(N_STEPS, when_written(directory / FIRST, fault.begin))
    # after a while, in which the thread's write has failed
    loop = make_loop(saving, begin, BeforeStep(2 * N_STEPS, lambda: (time.sleep(0.3), fault.end())))
    with pytest.warns(UserWarning, match=f"cannot be written: {fault.reason}") as warned:
        loop.train(3)
    assert 1 == len(warned)
    assert reference == bits(loop)
    assert [3, 9] == [int(name.rpartition("-")[2]) for name in names_in(directory)]
    assert 0 == main([str(directory)])
    assert "" == capfd.readouterr().err


def test_an_error_of_a_thread_is_raised_at_the_next_safe_point(directory, monkeypatch):
    """An asynchronous save that has failed ends the run after the current batch."""
    has_failed = threading.Event()

    def fail(path):
        has_failed.set()
        raise OSError(errno.EIO, "Input/output error")

    def wait():
        has_failed.wait()
        time.sleep(0.3)  # in which the thread ends

    patch = lambda: monkeypatch.setattr(shutil, "disk_usage", fail)  # noqa: E731
    begin = BeforeStep(N_STEPS, when_written(directory / FIRST, patch))
    saving = Checkpoint(directory, asynchronous=True)
    loop = make_loop(saving, begin, BeforeStep(2 * N_STEPS, wait))
    with pytest.raises(CheckpointError, match="Input/output error"):
        loop.train(3)
    assert 2 * N_STEPS + 1 == loop.global_step


def test_an_error_of_a_thread_is_raised_at_the_end_at_the_latest(directory, make_fault):
    """The failure of the last save of a run is not lost with its thread."""
    fault = make_fault(SmallFiles)
    saving = Checkpoint(directory, asynchronous=True)
    loop = make_loop(saving, BeforeStep(2 * N_STEPS, when_written(directory / SECOND, fault.begin)))
    with pytest.raises(CheckpointError, match=f"{THIRD} cannot be written"):
        loop.train(3)
    fault.end()
    assert [FIRST, SECOND] == names_in(directory)


def test_a_directory_that_is_removed_is_an_error(directory, reference):
    """The run fails, and its next start creates the directory and starts again."""
    loop = make_loop(Checkpoint(directory), BeforeStep(N_STEPS, lambda: shutil.rmtree(directory)))
    with pytest.raises(CheckpointError, match=f"{FIRST[:6]}.* cannot be written: No such file"):
        loop.train(3)
    assert not directory.exists()
    assert reference == trained(Checkpoint(directory))


def test_a_directory_that_is_removed_can_be_a_warning(directory, reference):
    """With on_failure="warn" the run continues even then."""
    saving = Checkpoint(directory, on_failure="warn")
    with pytest.warns(UserWarning, match="cannot be written"):
        assert reference == trained(saving, BeforeStep(N_STEPS, lambda: shutil.rmtree(directory)))


def test_a_failure_of_training_is_not_hidden_by_a_fault(directory, make_fault):
    """A run that fails, and cannot write a directory crash-..., raises the failure itself."""
    fault = make_fault(SmallFiles)

    def fail():
        fault.begin()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        trained(Checkpoint(directory), BeforeStep(N_STEPS, fail))
    fault.end()
    assert "cannot be written: File too large" in "".join(caught.value.__notes__)
    assert [FIRST] == names_in(directory)


@pytest.mark.parametrize("name", ["mkdir", "open", "write", "fsync", "rename"])
def test_each_call_of_a_save_may_fail(tmp_path, monkeypatch, name):
    """Whichever call of the system fails, all checkpoints are intact afterwards."""
    real, n_calls, failing = getattr(os, name), 0, None

    def call(*args, **kwargs):
        nonlocal n_calls
        n_calls += 1
        if n_calls == failing:
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **kwargs)

    def save(directory):
        nonlocal n_calls
        n_calls = 0
        begin = BeforeStep(N_STEPS, lambda: monkeypatch.setattr(os, name, call))
        try:
            trained(Checkpoint(directory), begin, n_epochs=2)
        finally:
            monkeypatch.undo()

    save(tmp_path / "whole")
    n_errors = 0
    for failing in sorted({1 + (n_calls - 1) * i // 5 for i in range(6)}):
        directory = tmp_path / f"{failing}"
        try:
            save(directory)
        except CheckpointError as error:
            n_errors += "cannot be written: Input/output error" in str(error)
        else:  # the call was one of looking for old checkpoints to remove
            assert [FIRST, SECOND] == names_in(directory)
        assert {FIRST} <= set(names_in(directory)) <= {FIRST, SECOND}
        assert 0 == main([str(directory)])
    assert n_errors


# -- before work starts ---------------------------------------------------------------------


def refused(directory, **config):
    """Return the error with which a run is refused before its first batch."""
    batches = []
    with pytest.raises(CheckpointError) as caught:
        trained(Checkpoint(directory, **config), BeforeStep(None, lambda: batches.append(1)))
    assert [] == batches
    return str(caught.value)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_place_of_a_directory_is_refused(tmp_path, place):
    """A path that cannot become a directory is an error before the first batch."""
    (tmp_path / "file").write_text("kept")
    message = refused(tmp_path / place)
    assert message.startswith(f"no checkpoint can be written to {tmp_path / place}: ")
    assert message.endswith(". Give another directory, or make that one writable")
    assert "kept" == (tmp_path / "file").read_text()


def test_a_path_that_will_be_too_long_is_refused(tmp_path):
    """C11: before the first batch, not at the first save; nothing is left."""
    directory = tmp_path
    while len(str(directory)) < 3900:
        directory = directory / ("x" * 100)
    directory = directory / ("y" * (4055 - len(str(directory)) - 1))
    assert "no checkpoint can be written to" in (message := refused(directory))
    assert "File name too long. Give another directory" in message
    assert [] == names_in(directory)


@pytest.mark.parametrize("at", ["directory", "resume"])
def test_a_name_that_is_too_long_is_refused(tmp_path, at):
    """C11: as an error about checkpoints, not as one of the system."""
    message = refused(**{"directory": tmp_path / "runs", at: tmp_path / ("x" * 300)})
    assert f"{'x' * 300} cannot be read: File name too long" in message


def test_a_directory_that_cannot_be_read_is_refused(directory, make_fault, capsys):
    """C11: as an error about checkpoints, also in the listing."""
    trained(Checkpoint(directory), n_epochs=1)
    directory.chmod(0)
    fault = make_fault(NoPermission)
    try:
        if os.geteuid() == 0:
            import pwd

            os.seteuid(pwd.getpwnam("nobody").pw_uid)
        assert f"{directory} cannot be read: Permission denied" == refused(directory)
        assert 2 == main([str(directory)])
        assert f"ttl: {directory} cannot be read: Permission denied\n" == capsys.readouterr().err
    finally:
        fault.end()
        directory.chmod(0o755)


def test_other_files_that_begin_as_temporary_ones_are_left_alone(directory, reference):
    """C11: only what a killed run can have left is removed."""
    (directory / ".tmp-notes").write_text("kept")
    (directory / ".tmp-folder").mkdir()
    (directory / f".tmp-removed-{FIRST}").mkdir()
    assert reference == trained(Checkpoint(directory))
    assert [".tmp-folder", ".tmp-notes", FIRST, SECOND, THIRD] == names_in(directory)


def test_a_file_by_the_name_of_a_temporary_directory_is_named(directory):
    """C11: the error says which one it is."""
    (directory / f".tmp-{FIRST}").write_text("kept")
    assert f".tmp-{FIRST} in it is no directory" in refused(directory)


@pytest.mark.parametrize(
    ("free", "expected"),
    [(10**6, "3 MB, but 1 MB"), (3_140_000, "3.15 MB, but 3.14 MB"), (0, "3 MB, but 0 MB")],
)
def test_sizes_are_shown_so_that_they_differ(directory, monkeypatch, free, expected):
    """C11: never "it needs 1 MB, but 1 MB are free"."""
    usage = namedtuple("usage", "total used free")(10**9, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=f"it needs {expected} are free"):
        check_free_space(directory, torch.zeros(3_150_000 - (1 << 20), dtype=torch.uint8))


@pytest.mark.parametrize("kind", [Immutable, NoPermission])
def test_a_directory_that_cannot_be_written_to_is_refused(directory, make_fault, kind):
    """A read-only directory is an error before the first batch."""
    fault = make_fault(kind)
    fault.begin()
    message = refused(directory)
    fault.end()
    assert f"no checkpoint can be written to {directory}: {fault.reason}" in message
    assert [] == os.listdir(directory)


@pytest.mark.parametrize("kind", [Immutable, NoPermission])
def test_a_directory_that_was_written_to_before_is_refused(directory, make_fault, kind):
    """A directory that has become read-only since the last run is an error too."""
    trained(Checkpoint(directory), n_epochs=1)
    fault = make_fault(kind)
    fault.begin()
    message = refused(directory)
    fault.end()
    assert f"no checkpoint can be written to {directory}: {fault.reason}" in message


def test_a_missing_directory_can_be_a_warning(tmp_path, reference):
    """With on_failure="warn" a run trains without a directory."""
    (tmp_path / "file").write_text("kept")
    with pytest.warns(UserWarning, match="no checkpoint can be written to"):
        assert reference == trained(Checkpoint(tmp_path / "file", on_failure="warn"))


# -- other writers --------------------------------------------------------------------------

TAKEN = "another run, or another component of this one, saves into {}. Give each a directory"


@pytest.mark.parametrize("on_failure", ["raise", "warn"])
def test_two_components_with_one_directory_are_refused(directory, on_failure):
    """Two savers in one loop would remove each other's checkpoints."""
    savers = [Checkpoint(directory, on_failure=on_failure) for _ in range(2)]
    with pytest.raises(RunError, match=re.escape(TAKEN.format(directory))):
        trained(*savers)
    trained(savers[0])  # the refused run has released it


def test_two_names_of_one_directory_are_refused(directory, tmp_path):
    """A link to a directory is the same directory."""
    (tmp_path / "link").symlink_to(directory)
    with pytest.raises(RunError, match="another run, or another component"):
        trained(Checkpoint(directory), Checkpoint(tmp_path / "link"))


OTHER_RUN = """
import sys
from ttl_checkpoint import Checkpoint
from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.testing import ComponentConformance

class Wait(LoopComponent):
    def on_batch_begin(self, loop):
        if loop.global_step == 2:
            print("here", flush=True)
            sys.stdin.read()

data = ComponentConformance.make_data(3)
components = [Checkpoint(sys.argv[1], every=1), Wait()]
TrainTestLoop(ComponentConformance.make_model(), components, data).train(1)
"""


def test_two_runs_with_one_directory_are_refused_until_one_is_killed(directory):
    """A second run is refused while the first one runs; after kill -9 nothing is locked."""
    command = [sys.executable, "-c", OTHER_RUN, directory]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        try:
            assert b"here\n" == other.stdout.readline()
            with pytest.raises(RunError, match=re.escape(TAKEN.format(directory))):
                trained(Checkpoint(directory, resume="never"))
            assert 2 == len(names_in(directory))
        finally:
            other.kill()
    trained(Checkpoint(directory, resume="never"))
    assert 0 == main([str(directory)])


def locked_from_outside(directory):
    """Return whether another process finds a directory locked."""
    pid = os.fork()
    if not pid:
        try:
            DirectoryLock(directory).acquire()
        except RunError:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 1)
    return status == 1


def test_a_copy_of_the_directory_does_not_unlock_it(directory, tmp_path):
    """C7: closing a descriptor of the lock's file elsewhere in this process changes nothing."""
    seen = []

    def copy():
        seen.append(locked_from_outside(directory))
        shutil.copytree(directory, tmp_path / "copy")
        (directory / ".lock").read_bytes()
        seen.append(locked_from_outside(directory))

    trained(Checkpoint(directory), BeforeStep(4, copy), n_epochs=2)
    assert [True, True, False] == [*seen, locked_from_outside(directory)]


def test_a_forked_process_does_not_keep_the_lock(directory):
    """C7: a worker that outlives its run does not keep the next one out."""
    lock = DirectoryLock(directory)
    lock.acquire()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(reading, 1)
        os._exit(0)
    try:
        assert locked_from_outside(directory)  # the child has not released what the parent holds
        lock.release()
        lock = DirectoryLock(directory)
        lock.acquire()
    finally:
        os.write(writing, b"x")
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)
        lock.release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(directory, reference, monkeypatch, number):
    """C12: one warning, and the run continues; a second saver in the process is still refused."""

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks") as warned:
        results = [trained(Checkpoint(directory, resume="never")) for _ in range(2)]
    assert ([reference] * 2, 1) == (results, len(warned))
    with pytest.raises(RunError, match="another run, or another component"):
        trained(Checkpoint(directory), Checkpoint(directory))


def test_a_directory_that_cannot_be_synced_is_a_warning(directory, reference, monkeypatch):
    """C12: fsync() of a directory fails on some file systems; files are synced all the same."""
    fsync, n_files = os.fsync, 0

    def refuse(descriptor):
        nonlocal n_files
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        n_files += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(errors, "_warned", set())
    with pytest.warns(UserWarning, match="cannot sync directories") as warned:
        assert reference == trained(Checkpoint(directory))
    assert (1, 6) == (len(warned), n_files)
    assert 0 == main([str(directory)])


# -- the same with a naive saver ------------------------------------------------------------


def test_a_naive_saver_leaves_a_broken_file_and_nothing_else(directory, make_fault):
    """The old checkpoint is lost when the new one fails."""
    fault = make_fault(SmallFiles)
    loop = make_loop(NaiveFileSaver(directory), BeforeStep(N_STEPS, fault.begin))
    with pytest.raises((RuntimeError, OSError)) as caught:
        loop.train(3)
    fault.end()
    assert not isinstance(caught.value, CheckpointError)
    assert ["last.pt"] == names_in(directory)
    with pytest.raises((RuntimeError, OSError)):
        torch.load(directory / "last.pt")


def test_a_naive_saver_trains_in_vain_before_it_fails(directory, make_fault):
    """It finds that a directory is read-only when there is something to lose."""
    fault = make_fault(Immutable)
    fault.begin()
    loop = make_loop(NaiveFileSaver(directory))
    with pytest.raises((RuntimeError, OSError)):
        loop.train(3)
    fault.end()
    assert 1 == loop.global_step


def test_naive_savers_overwrite_each_other(directory):
    """Two of them share a file, without an error or a warning."""
    one, other = NaiveFileSaver(directory), NaiveFileSaver(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(one, other)
    assert (["last.pt"], one.path) == (names_in(directory), other.path)
