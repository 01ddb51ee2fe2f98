"""The folder of a run, its record, and what a restarted script does."""

import contextlib
import datetime
import json
import logging
import os
import re
import signal
import time
import warnings

import pytest
import torch
from ttl_run import RunFolder, folders, record

from ttl_core import ArgumentError, LoopComponent, RunError, TrainTestLoop, use


class At(LoopComponent):
    """A component that calls a function at the begin of an epoch."""

    def __init__(self, act):
        self.act = act

    def on_epoch_begin(self, loop):
        self.act(loop)


class Stopping(LoopComponent):
    def on_safe_point(self, loop):
        loop.stop("it is enough")


def make_loop(*components):
    """Return a loop of two batches."""
    return TrainTestLoop(torch.nn.Identity(), components, [0, 1])


def starts_in(folder):
    """Return the starts in the record of a folder."""
    return json.loads((folder / "run.json").read_text())["starts"]


@pytest.fixture
def new_process(monkeypatch):
    """Forget which folders were used, as a restarted script has."""

    def forget():
        monkeypatch.setattr(folders, "_started", set())

    forget()
    return forget


def fail(_):
    """Raise an error, as a component that fails."""
    raise ValueError("bad")


# -- the folder -----------------------------------------------------------------------------


def test_a_folder_has_a_name_and_the_time(tmp_path, monkeypatch):
    """By default the name is that of the script, and it lies in runs/."""
    monkeypatch.chdir(tmp_path)
    loop = make_loop(use("run-folder", run_name="mnist"))
    loop.train(1)
    assert tmp_path / "runs" == loop.run_folder.parent
    assert re.fullmatch(r"mnist-\d{8}-\d{6}", loop.run_folder.name)
    assert loop.components["run-folder"].folder == loop.run_folder


def test_two_runs_in_the_same_second_have_different_folders(tmp_path, monkeypatch):
    """The second one has a number."""

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2025, 1, 31, 23, 59, 59)

    monkeypatch.setattr(folders.datetime, "datetime", Frozen)
    paths = []
    for _ in range(3):
        loop = make_loop(RunFolder(run_name="a", root=tmp_path))
        loop.train(1)
        paths.append(loop.run_folder)
    names = ["a-20250131-235959", "a-20250131-235959-2", "a-20250131-235959-3"]
    assert names == [path.name for path in paths]
    assert folders._folders(tmp_path, "a") == paths[::-1]


def test_several_runs_of_a_loop_are_one_start(tmp_path):
    """They share the folder; the last one decides how it ended."""
    loop = make_loop(RunFolder(run_name="a", root=tmp_path))
    loop.train(1)
    loop.train(1)
    loop.test([0])
    assert 1 == len(list(tmp_path.iterdir()))
    (start,) = starts_in(loop.run_folder)
    assert ("complete", 2, 4) == (start["ended"], start["epoch"], start["step"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"run_name": "a/b"}, "run_name is 'a/b', but has to be a part of a path, as 'mnist'"),
        ({"run_name": ""}, "run_name is ''"),
        ({"directory": "a", "run_name": "b"}, "directory is 'a', a fixed folder"),
        ({"resume": "always"}, "resume is 'always', but has to be 'auto' or 'never'"),
        ({"directory": 3}, "directory is 3, but has to be a path"),
    ],
)
def test_unusable_arguments_are_refused(config, message):
    """Before anything is made."""
    with pytest.raises(ArgumentError, match=re.escape(message)):
        RunFolder(**config)


def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path):
    """It says which, and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written to: .* Give another "):
        make_loop(RunFolder(tmp_path / "file" / "run")).train(1)


def test_a_folder_of_a_run_under_way_is_an_error(tmp_path):
    """The other one is undisturbed."""
    other = make_loop(RunFolder(tmp_path))
    loop = make_loop(RunFolder(tmp_path), At(lambda _: other.train(1)))
    with pytest.raises(RunError, match="another run, which is under way, has the folder"):
        loop.train(1)
    assert 1 == len(starts_in(tmp_path))


# -- the record -----------------------------------------------------------------------------


def test_the_record_says_what_ran_and_where(tmp_path):
    """It has the manifest, the command, versions, the machine and the seed."""
    torch.manual_seed(5)
    loop = make_loop(RunFolder(tmp_path))
    loop.train(1)
    content = json.loads((tmp_path / "run.json").read_text())
    assert loop.manifest() == content["manifest"]
    assert torch.__version__ == content["versions"]["torch"]
    assert {"ttl-core", "ttl-run", "pluggy"} < content["versions"].keys()
    assert os.cpu_count() == content["machine"]["cpus"]
    assert {"torch": 5} == content["seeds"]
    assert os.getcwd() == content["directory"]


def test_the_commit_is_recorded_and_whether_files_were_changed(tmp_path, monkeypatch):
    """Untracked files do not count; without a repository there is nothing."""
    from ttl_run import surroundings

    state = surroundings.git_state.__wrapped__
    monkeypatch.setattr(surroundings, "script", lambda: tmp_path / "train.py")
    assert state() is None
    git = "git -c user.name=a -c user.email=b -c init.defaultBranch=main -C"
    os.system(f"{git} {tmp_path} init -q")
    (tmp_path / "train.py").write_text("1")
    os.system(f"{git} {tmp_path} add . && {git} {tmp_path} commit -qm a")
    (tmp_path / "runs").touch()
    clean = state()
    (tmp_path / "train.py").write_text("2")
    assert (False, True) == (clean["dirty"], state()["dirty"])
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"])
    assert "main" == clean["branch"]


def test_without_git_there_is_no_commit(monkeypatch):
    """It is no error."""
    from ttl_run import surroundings

    monkeypatch.setenv("PATH", "")
    assert surroundings.git_state.__wrapped__() is None


def ended(folder, *components):
    """Return the end that a run records, without times."""
    with contextlib.suppress(ValueError, SystemExit, KeyboardInterrupt):
        make_loop(RunFolder(folder), *components).train(1)
    start = starts_in(folder)[-1]
    assert start["end"] >= start["start"]
    keys = ("ended", "stopped_by", "exception", "signal")
    return {key: start[key] for key in keys if key in start}


def raising(exception):
    """Return a component that raises an exception."""

    def act(_):
        raise exception

    return At(act)


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ([], {"ended": "complete"}),
        (
            [At(lambda loop: loop.stop())],
            {"ended": "stopped", "stopped_by": {"component": "at", "reason": None}},
        ),
        (
            [Stopping()],
            {
                "ended": "stopped",
                "stopped_by": {"component": "stopping", "reason": "it is enough"},
            },
        ),
        ([raising(ValueError("bad"))], {"ended": "failed", "exception": "ValueError: bad"}),
        ([raising(SystemExit(143))], {"ended": "preempted", "signal": "SIGTERM"}),
        ([raising(SystemExit(1))], {"ended": "interrupted", "exception": "SystemExit: 1"}),
        (
            [raising(KeyboardInterrupt())],
            {"ended": "interrupted", "exception": "KeyboardInterrupt"},
        ),
    ],
    ids=lambda value: value["ended"] if isinstance(value, dict) else "",
)
def test_the_record_says_how_the_run_ended(tmp_path, components, expected):
    """Complete, stopped by a component and why, failed, preempted or interrupted."""
    assert expected == ended(tmp_path, *components)


def test_a_script_that_is_started_again_says_what_had_stopped_its_run(tmp_path):
    """The run loads as a stopped one, and nothing is trained."""
    for _ in range(2):
        make_loop(RunFolder(tmp_path), use("checkpoint"), Stopping()).train(2)
    expected = {"component": "stopping", "reason": "it is enough"}
    assert [expected] * 2 == [start["stopped_by"] for start in starts_in(tmp_path)]


def test_a_full_disk_does_not_end_training(tmp_path, monkeypatch):
    """It warns once, and the earlier record is as it was."""

    def full(*_):
        raise OSError(28, "No space left on device")

    def fill(_):
        monkeypatch.setattr(record.os, "replace", full)

    loop = make_loop(RunFolder(tmp_path), At(fill))
    with pytest.warns(UserWarning, match=r"run.json cannot be written: .*Training continues"):
        loop.train(2)
    assert 2 == loop.epoch_num
    with warnings.catch_warnings(action="error"):
        loop.train(1)
    assert starts_in(tmp_path)[0]["ended"] is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_log_lines_that_do_not_fit_on_the_disk_do_not_end_training(tmp_path):
    """Neither where they are logged, nor when the file is closed with what it has buffered."""
    (tmp_path / "log.txt").symlink_to("/dev/full")
    log = logging.getLogger("test")
    loop = make_loop(RunFolder(tmp_path), At(lambda _: log.error("a line")))
    with pytest.warns(UserWarning, match=r"log.txt cannot be written") as warned:
        loop.train(2)
    assert (1, "complete") == (len(warned), starts_in(tmp_path)[0]["ended"])


# -- a restarted script ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "continues"),
    [
        ([At(fail)], True),
        ([raising(SystemExit(143))], True),
        ([raising(KeyboardInterrupt())], True),
        ([], False),
        ([Stopping()], False),
    ],
    ids=["failed", "preempted", "interrupted", "complete", "stopped"],
)
def test_a_restarted_script_continues_an_unfinished_run(
    tmp_path, new_process, caplog, components, continues
):
    """In the same folder, to whose starts it adds one; and it says so."""
    loop = make_loop(RunFolder(run_name="a", root=tmp_path), *components)
    with contextlib.suppress(ValueError, SystemExit, KeyboardInterrupt):
        loop.train(1)
    new_process()
    again = make_loop(RunFolder(run_name="a", root=tmp_path))
    again.train(1)
    assert continues == (loop.run_folder == again.run_folder)
    assert continues == any(f"continuing in {loop.run_folder}" in m for m in caplog.messages)
    assert (2 if continues else 1) == len(starts_in(again.run_folder))


def test_another_loop_of_the_same_process_does_not_continue(tmp_path):
    """A trial that has failed is over."""
    loop = make_loop(RunFolder(run_name="a", root=tmp_path), At(fail))
    with pytest.raises(ValueError, match="bad"):
        loop.train(1)
    again = make_loop(RunFolder(run_name="a", root=tmp_path))
    again.train(1)
    assert loop.run_folder != again.run_folder


def test_a_new_folder_can_be_requested(tmp_path, new_process):
    """resume="never" continues nothing."""
    with pytest.raises(ValueError, match="bad"):
        make_loop(RunFolder(run_name="a", root=tmp_path), At(fail)).train(1)
    new_process()
    make_loop(RunFolder(run_name="a", root=tmp_path, resume="never")).train(1)
    assert 2 == len(list(tmp_path.iterdir()))


def test_the_folder_of_another_name_is_left_alone(tmp_path, new_process):
    """A name that begins alike is another one."""
    with pytest.raises(ValueError, match="bad"):
        make_loop(RunFolder(run_name="a-b", root=tmp_path), At(fail)).train(1)
    new_process()
    make_loop(RunFolder(run_name="a", root=tmp_path)).train(1)
    assert 2 == len(list(tmp_path.iterdir()))


def in_child(act):
    """Call a function in a forked process, and return its number."""
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(0)
    return pid


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, None], ids=["killed", "under way"])
def test_the_folder_of_a_killed_run_is_continued_and_one_under_way_is_not(
    tmp_path, new_process, signal_number
):
    """The lock tells them apart, as neither has recorded an end."""
    reading, writing = os.pipe()

    def train():
        def wait(_):
            os.write(writing, b"1")
            time.sleep(60)

        make_loop(RunFolder(run_name="a", root=tmp_path), At(wait)).train(1)

    pid = in_child(train)
    os.read(reading, 1)
    try:
        if signal_number is not None:
            os.kill(pid, signal_number)
            os.waitpid(pid, 0)
        make_loop(RunFolder(run_name="a", root=tmp_path)).train(1)
        n_starts = sorted(len(starts_in(folder)) for folder in tmp_path.iterdir())
        assert ([1, 1] if signal_number is None else [2]) == n_starts
    finally:
        if signal_number is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_preempted_run_resumes_from_the_checkpoints_in_its_folder(tmp_path, new_process):
    """With checkpoint after it, the same list of names resumes."""

    def components():
        return [use("run-folder", run_name="a", root=tmp_path), "checkpoint"]

    def terminate(loop):
        if loop.epoch_num == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        make_loop(*components(), At(terminate)).train(3)
    new_process()
    loop = make_loop(*components())
    loop.train(3)
    first, second = starts_in(loop.run_folder)
    assert ("preempted", "SIGTERM", 3) == (first["ended"], first["signal"], first["step"])
    assert ("complete", 3, 6) == (second["ended"], second["epoch"], second["step"])


# -- log.txt --------------------------------------------------------------------------------


def test_log_lines_are_copied_while_a_run_is_under_way(tmp_path):
    """With times, and no longer afterwards; the handlers are those from before."""
    before = list(logging.getLogger().handlers)
    log = logging.getLogger("acme")
    loop = make_loop(RunFolder(tmp_path), At(lambda _: log.warning("slow %s", "disk")))
    log.warning("too early")
    loop.train(1)
    log.warning("too late")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert ["acme: slow disk"] == [line.split("WARNING ")[1] for line in lines]
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", lines[0])
    assert before == logging.getLogger().handlers


def test_a_failure_is_in_the_log_with_its_traceback(tmp_path):
    """As the console shows it: without ttl's frames, and with the component that raised it."""
    with pytest.raises(ValueError, match="bad"):
        make_loop(RunFolder(tmp_path), At(fail)).train(1)
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback (most recent call last)" in text
    assert "wrappers.py" not in text
    assert re.search(r"ValueError: bad\nttl: raised by component 'at' .* in on_epoch_begin", text)


def test_a_run_that_is_refused_leaves_the_log_of_the_other_alone(tmp_path):
    """It has not begun in the folder."""
    other = make_loop(RunFolder(tmp_path))
    loop = make_loop(RunFolder(tmp_path), At(lambda _: other.train(1)))
    with pytest.raises(RunError, match="has the folder") as caught:
        loop.train(1)
    assert not any("on_exception" in note for note in caught.value.__notes__)
    assert (tmp_path / "log.txt").read_text().count("Traceback") == 1


def test_the_console_shows_warnings_where_no_logging_is_set_up(tmp_path, monkeypatch, capsys):
    """The copy must not silence Python's handler of last resort."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log = logging.getLogger("acme")
    make_loop(RunFolder(tmp_path), At(lambda _: [log.warning("seen"), log.info("not")])).train(1)
    assert "seen\n" == capsys.readouterr().err
