"""The files of `csv` and `jsonl`: their rows, and what happens to them."""

import contextlib
import json
import math
import resource
import shutil

import numpy as np
import pandas
import pytest
import torch
from loops import act_at
from recording import StateRecorder

from ttl_core import ArgumentError


def epoch_row(epoch, step, **values):
    """Return a row of an epoch."""
    return {"level": "epoch", "epoch": epoch, "step": step} | {
        name.replace("_", "/"): value for name, value in values.items()
    }


def test_the_values_of_one_step_and_level_are_one_row(files, log):
    """Several calls of log() continue a row, also the one that was written last."""
    files.make_loop(log, valid_data=[7]).train(1)
    expected = [
        {"level": "batch", "epoch": 0, "step": i, "train/loss": i / 2, "train/b": i}
        for i in range(3)
    ]
    assert [*expected, epoch_row(0, 3, train_last=2, valid_last=7)] == files.rows()


def test_a_row_continues_between_two_writes(files, log):
    """The values of the validation come into the row of the training epoch, also much later."""
    loop = files.make_loop(log, valid_data=[7, 8])
    loop.components.insert(0, act_at("on_batch_end", lambda loop: loop.components[-1].flush()))
    loop.train(2)
    rows = [row for row in files.rows() if row["level"] == "epoch"]
    assert [epoch_row(i, 3 * i + 3, train_last=2, valid_last=8) for i in range(2)] == rows


def test_a_name_that_comes_again_begins_another_row(files, log_these):
    """No value is lost where gradients accumulate: several batches have one step."""

    def accumulate(loop):
        loop.is_stepping = loop.batch_num == 2

    loop = files.make_loop(
        act_at("on_batch_begin", accumulate),
        log_these(lambda loop: loop.log({"b": loop.batch})),
    )
    loop.train(1)
    assert [(0, 0), (0, 1), (1, 2)] == [(r["step"], r["train/b"]) for r in files.rows()]


def test_values_of_all_kinds_of_numbers_are_written(files, log_these):
    """Those that are not finite too, in a form that float() reads."""
    values = {"i": 10**20, "f": 0.1, "t": torch.tensor(0.5), "n": np.float32(2), "b": True}
    values |= {"nan": math.nan, "inf": torch.tensor(math.inf), "-inf": -math.inf}
    files.make_loop(log_these(lambda loop: loop.log(values)), data=[0]).train(1)
    (row,) = files.rows()
    expected = {f"train/{name}": float(value) for name, value in values.items()}
    assert repr({**expected}) == repr({k: v for k, v in row.items() if k.startswith("train/")})


@pytest.mark.parametrize("files", ["jsonl"], indirect=True)
def test_jsonl_is_strict_json(files, log_these):
    """No line holds NaN or Infinity as a number."""
    files.make_loop(log_these(lambda loop: loop.log({"a": math.nan})), data=[0]).train(1)

    def refuse(constant):
        raise AssertionError(constant)

    row = json.loads(files.path().read_text(), parse_constant=refuse)
    assert "NaN" == row["train/a"]


def test_odd_names_are_quoted(files, log_these):
    """They are read back as they were logged."""
    names = ['a,"b"', "c\nd", "é", " ", "\t'\\", '},{"level":', "],[", "null"]
    files.make_loop(log_these(lambda loop: loop.log(dict.fromkeys(names, 1)))).train(1)
    assert [f"train/{name}" for name in names] == list(files.rows()[0])[3:]
    assert len(files.rows()) == 3


def test_a_name_that_is_no_valid_text_is_written_as_an_escape(files, log_these):
    """It does not keep other values from being written."""
    files.make_loop(log_these(lambda loop: loop.log({"\udc80": 1}))).train(1)
    assert [1, 1, 1] == [list(row.values())[-1] for row in files.rows()]


def test_what_no_row_can_hold_is_left_out_with_a_warning(files, log_these, caplog):
    """It is said once for each name, and other values of the same call are written."""
    values = {"text": "x", "image": torch.zeros(2, 2), "none": None, "complex": 1j, "ok": 1}
    loop = files.make_loop(log_these(lambda loop: loop.log(values)))
    named = {"step": 7, "ok": 2}
    loop.components.append(act_at("on_train_end", lambda loop: loop.log(named, level="epoch")))
    loop.train(1)
    assert [1, 1, 1, 2] == [list(row.values())[-1] for row in files.rows()]
    reason = "and a row holds single numbers"
    assert [
        f"{files.kind}: 'train/text' is not written: it is a str, {reason}",
        f"{files.kind}: 'train/image' is not written: it is a Tensor, {reason}",
        f"{files.kind}: 'train/none' is not written: it is a NoneType, {reason}",
        f"{files.kind}: 'train/complex' is not written: it is a complex, {reason}",
        f"{files.kind}: 'step' is not written: each row has a column of that name. Log it under "
        "another one",
    ] == caplog.messages


def test_columns_that_appear_later_are_empty_in_earlier_rows(csv_files, log_these):
    """The header grows, and pandas reads the whole file."""
    log = log_these(lambda loop: loop.log({f"a{n}": n for n in range(loop.global_step)}))
    loop = csv_files.make_loop(log, data=range(4))
    loop.components.insert(1, act_at("on_batch_end", lambda loop: loop.components[-1].flush()))
    loop.train(1)
    frame = pandas.read_csv(csv_files.path())
    names = [f"train/a{n}" for n in range(4)]
    assert ["level", "epoch", "step", "time", *names] == list(frame.columns)
    expected = [[float(c) if c <= r else math.nan for c in range(4)] for r in range(4)]
    assert repr(expected) == repr(frame[names].astype(float).values.tolist())
    assert [csv_files.path()] == list(csv_files.directory.iterdir())


# -- several runs ---------------------------------------------------------------------------


def test_a_new_run_moves_the_file_that_it_finds(files, log, caplog):
    """Nothing is lost, and it is said where it is."""
    caplog.set_level("INFO")
    for n in range(1, 4):
        files.make_loop(log, data=range(n)).train(1)
    assert [[0], [0, 1], [0, 1, 2]] == [files.steps(n) for n in (1, 2, None)]
    assert f"{files.kind}: {files.path()} is moved to {files.path(2)}" == caplog.messages[-1]


def test_further_runs_of_a_loop_append(files, log):
    """train() again, and test()."""
    loop = files.make_loop(log)
    loop.train(1)
    loop.train(1)
    loop.test([9])
    assert [*range(6)] == files.steps()
    assert 9 == files.rows()[-1]["test/last"]
    assert [files.path()] == list(files.directory.iterdir())


def test_a_resumed_run_has_the_rows_of_a_whole_one(files, log):
    """From each safe point, in a directory where the file of the interrupted run is."""
    recorder = StateRecorder()
    files.make_loop(log, recorder, valid_data=[7]).train(2)
    whole, text = files.rows(), files.path().read_text()
    for state in [*recorder.states]:  # which grows
        files.path().write_text(text)
        loop = files.make_loop(log, recorder, valid_data=[7])
        loop.load_state_dict(state)
        loop.train(2)
        assert whole == files.rows()
    assert [files.path()] == list(files.directory.iterdir())


def test_a_run_resumes_though_columns_have_appeared_since(csv_files, log):
    """The first state is from before there were columns of epochs."""
    recorder = StateRecorder()
    loop = csv_files.make_loop(log, recorder)
    loop.components.insert(0, act_at("on_safe_point", lambda loop: loop.components[-1].flush()))
    loop.train(2)
    whole = csv_files.rows()
    assert len(recorder.states[0]["components"]["csv"]["position"]["row"]) == 6
    loop = csv_files.make_loop(log, recorder)
    loop.load_state_dict(recorder.states[0])
    loop.train(2)
    assert whole == csv_files.rows()


def test_values_logged_before_the_state_is_restored_do_not_move_the_file(files, log):
    """They are in the file of the interrupted run already."""
    recorder = StateRecorder()
    begin = act_at("on_train_begin", lambda loop: loop.log({"size": 5}, level="epoch"))
    files.make_loop(begin, log, recorder).train(1)
    whole = files.rows()
    loop = files.make_loop(begin, log, recorder)
    loop.load_state_dict(recorder.states[1])
    loop.train(1)
    assert whole == files.rows()
    assert [files.path()] == list(files.directory.iterdir())


def test_a_file_of_another_run_is_not_cut(files, log, caplog):
    """A run that resumes in a directory with another file moves that, and says so."""
    recorder = StateRecorder()
    files.make_loop(log, recorder).train(1)
    files.path().unlink()
    files.make_loop(log).train(1)
    loop = files.make_loop(log, recorder)
    loop.load_state_dict(recorder.states[1])
    loop.train(1)
    assert [0, 1, 2] == files.steps(1)
    assert [2] == files.steps()
    assert "does not have the 2 rows from before" in caplog.text


# -- what happens to a file -----------------------------------------------------------------


def flushed(files, log, action):
    """Train with an action before the second batch, when all values are written."""

    def act(loop):
        loop.components[-1].flush()
        if loop.batch_num == 1:
            action()

    files.make_loop(log, act_at("on_safe_point", act)).train(1)


def test_a_file_that_is_removed_is_begun_again(files, log, caplog):
    """It is said, and what comes is written."""
    flushed(files, log, lambda: files.path().unlink())
    assert [2] == files.steps()
    assert f"{files.path()}" in caplog.text
    assert "A new file is begun" in caplog.text


def test_a_directory_that_is_removed_is_created_again(files, log):
    """A run does not fail because its folder is gone."""
    flushed(files, log, lambda: shutil.rmtree(files.directory))
    assert [2] == files.steps()


def test_a_file_that_is_shortened_is_moved(files, log, caplog):
    """What is left of it is not lost."""
    flushed(files, log, lambda: files.path().write_text(files.path().read_text()[:20]))
    assert 20 == files.path(1).stat().st_size
    assert [2] == files.steps()
    assert f"{files.kind}: {files.path()} has 20 bytes, but" in caplog.text


def test_a_file_to_which_something_else_writes_is_left_alone(files, log, caplog):
    """The message says what to do."""

    def write():
        with files.path().open("a") as file:
            file.write("x\n")

    flushed(files, log, write)
    assert files.path().read_text().endswith("x\n")
    assert "Give each run a directory of its own" in caplog.text
    assert "3 records could not be written before the run ended" in caplog.text


@contextlib.contextmanager
def disk_of(n_bytes):
    """Let no file grow above a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 5, 60])
def test_a_failed_write_leaves_no_half_row(files, log, caplog, room):
    """A row that did not fit on the disk is written when there is room again."""
    seen = []

    def act(loop):
        logger = loop.components[-1]
        logger.flush()
        if loop.batch_num == 1:
            before = files.rows()
            loop.log({"much": 0.1, "more": 0.1})  # into the last row
            loop.log({"much": 0.2})
            with disk_of(files.path().stat().st_size + room):
                logger.flush()
            seen.extend([before, files.rows()])

    files.make_loop(log, act_at("on_batch_end", act)).train(1)
    before, after = seen
    assert before == after
    assert "values cannot be written: OSError: [Errno 27] File too large" in caplog.text
    assert [0, 1, 2, 2] == files.steps()
    assert [0.1, 0.2] == [row["train/much"] for row in files.rows() if "train/much" in row]
    assert [files.path()] == list(files.directory.iterdir())


def test_a_directory_that_cannot_be_written_to_is_an_error_before_work_starts(files, log):
    """The error names the directory, the reason and the fix."""
    (files.directory / "file").touch()
    files.directory = files.directory / "file" / "runs"
    loop = files.make_loop(log)
    for run in (lambda: loop.train(1), lambda: loop.test([1])):
        with pytest.raises(ArgumentError) as caught:
            run()
        assert (
            f"'{files.kind}' cannot write to its directory {files.directory}: [Errno 20] Not a "
            f"directory: '{files.directory}'. Choose another one: "
            f"use('{files.kind}', directory=...)"
        ) == str(caught.value)
    assert 0 == loop.global_step


def test_the_directory_is_by_default_the_folder_of_the_run(files, log):
    """Without either it is an error before training."""
    folder, files.directory = files.directory, None
    loop = files.make_loop(log)
    with pytest.raises(ArgumentError, match="has no directory"):
        loop.train(1)
    loop.run_folder = folder
    loop.train(1)
    assert folder / f"metrics.{files.kind}" == loop.components[-1].path
