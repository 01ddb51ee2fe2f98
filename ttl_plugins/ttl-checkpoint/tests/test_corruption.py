"""Checkpoints that differ from what was written are set aside, and the one before is used."""

import errno
import hashlib
import json
import logging
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_runs import FIRST, SECOND, train
from naive_savers import NaiveFileSaver
from ttl_checkpoint import Checkpoint, CheckpointError
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.errors import CorruptError
from ttl_checkpoint.reading import verify

FILES = ("state.pt", "manifest.json")


def bits(loop):
    """Return the weights, bit for bit."""
    return [parameter.tolist() for parameter in loop.model.parameters()]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a directory with the checkpoints of two epochs, and the weights after them."""
    directory = tmp_path_factory.mktemp("original")
    return directory, bits(train(Checkpoint(directory)))


@pytest.fixture
def directory(original, tmp_path):
    """Return a copy of that directory, to damage."""
    return shutil.copytree(original[0], tmp_path / "copy")


def flip(path, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def check_set_aside(directory, original, caplog):
    """Check that the second checkpoint is found corrupt, and a run resumes from the first."""
    with pytest.raises(CorruptError):
        verify(directory / SECOND)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert original[1] == bits(train(Checkpoint(directory)))
    logged = "\n".join(caplog.messages)
    assert f"{SECOND} is corrupt: " in logged
    assert f"It is set aside as corrupt-{SECOND}" in logged
    assert f"resuming from {directory / FIRST}" in logged
    assert (directory / f"corrupt-{SECOND}").exists()
    assert verify(directory / "000003-epoch-2-step-6")


def test_intact_checkpoints_are_verified(original):
    """What was written passes the check."""
    assert [6, 3] == [verify(original[0] / name)["step"] for name in (SECOND, FIRST)]


@pytest.mark.parametrize("file", FILES)
def test_a_file_truncated_anywhere_is_found(directory, file):
    """At twenty points, from an empty file to one that lacks its last byte."""
    path = directory / SECOND / file
    content = path.read_bytes()
    for i in range(20):
        path.write_bytes(content[: (len(content) - 1) * i // 19])
        with pytest.raises(CorruptError):
            verify(directory / SECOND)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("part", [0, 0.5, 1], ids=["empty", "half", "without its last byte"])
def test_a_truncated_file_is_set_aside(directory, original, caplog, file, part):
    """The run resumes from the checkpoint before."""
    path = directory / SECOND / file
    os.truncate(path, int(part * (path.stat().st_size - 1)))
    check_set_aside(directory, original, caplog)


@pytest.mark.parametrize("file", FILES)
def test_each_of_a_hundred_flipped_bits_is_found(directory, file):
    """Wherever a single bit of a file is flipped."""
    path = directory / SECOND / file
    for bit in random.Random(file).sample(range(8 * path.stat().st_size), 100):
        flip(path, bit)
        with pytest.raises(CorruptError):
            verify(directory / SECOND)
        flip(path, bit)
    assert verify(directory / SECOND)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("part", [0, 0.3, 0.6, 0.99])
def test_a_flipped_bit_is_set_aside(directory, original, caplog, file, part):
    """The run resumes from the checkpoint before."""
    path = directory / SECOND / file
    flip(path, int(part * 8 * path.stat().st_size))
    check_set_aside(directory, original, caplog)


def test_every_bit_where_a_manifest_begins_counts(directory):
    """No other spelling of the same JSON passes the check."""
    manifest = directory / SECOND / "manifest.json"
    for bit in range(800):
        flip(manifest, bit)
        with pytest.raises(CorruptError):
            verify(directory / SECOND)
        flip(manifest, bit)
    assert verify(directory / SECOND)


def test_an_edited_manifest_is_corrupt(directory):
    """Even if it is valid JSON with the same values."""
    path = directory / SECOND / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(CorruptError, match=r"manifest\.json is not what was written"):
        verify(directory / SECOND)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_found(directory, original, caplog, file):
    """A checkpoint without one of its files is set aside."""
    (directory / SECOND / file).unlink()
    check_set_aside(directory, original, caplog)


@pytest.mark.parametrize("name", ["extra.pt", ".hidden", "state.pt~"])
def test_an_added_file_is_found(directory, original, caplog, name):
    """A checkpoint with one more file is set aside."""
    (directory / SECOND / name).touch()
    check_set_aside(directory, original, caplog)


@pytest.mark.parametrize(
    "name", [".DS_Store", "._state.pt", ".nfs000000000a1b2c", ".fuse_hidden0001", "Thumbs.db"]
)
def test_files_of_systems_are_ignored(directory, name):
    """C12: what a file manager or a file system adds by itself is no corruption."""
    (directory / SECOND / name).touch()
    assert 6 == verify(directory / SECOND)["step"]
    assert 2 == train(Checkpoint(directory)).epoch_num
    assert {FIRST, SECOND} == set(os.listdir(directory))


def test_an_empty_directory_is_found(directory, original, caplog):
    """A checkpoint without any file is set aside."""
    shutil.rmtree(directory / SECOND)
    (directory / SECOND).mkdir()
    check_set_aside(directory, original, caplog)


def test_a_file_in_place_of_a_directory_is_found(directory, original, caplog):
    """A checkpoint that is a file is set aside."""
    shutil.rmtree(directory / SECOND)
    (directory / SECOND).write_text("")
    check_set_aside(directory, original, caplog)


def test_files_of_another_checkpoint_are_found(directory, original, caplog):
    """A state that is intact, but another checkpoint's, is set aside."""
    shutil.copy(directory / FIRST / "state.pt", directory / SECOND / "state.pt")
    check_set_aside(directory, original, caplog)


def test_what_a_killed_save_left_is_removed(directory, original):
    """A temporary directory is never resumed from, and is removed when the next run begins."""
    leftover = directory / ".tmp-000003-epoch-3-step-9"
    shutil.copytree(directory / SECOND, leftover)
    (leftover / "manifest.json").unlink()
    assert original[1] == bits(train(Checkpoint(directory)))
    assert not leftover.exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EMFILE, "Too many open files"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("function", ["load", "file_digest"])
def test_a_passing_failure_leaves_a_checkpoint_where_it_is(
    directory, original, monkeypatch, error, function
):
    """C4: short memory, or a disk that fails for a moment, is no corruption."""

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch if function == "load" else hashlib, function, fail)
        with pytest.raises((CheckpointError, MemoryError, RuntimeError)) as caught:
            train(Checkpoint(directory))
    assert not isinstance(caught.value, CorruptError)
    assert {FIRST, SECOND} == set(os.listdir(directory))
    loop = train(Checkpoint(directory))
    assert (2, original[1]) == (loop.epoch_num, bits(loop))
    assert {FIRST, SECOND} == set(os.listdir(directory))


def test_the_newest_two_may_be_corrupt(directory, original):
    """The newest intact one is used, however many newer ones are corrupt."""
    train(Checkpoint(directory), n_epochs=3)
    flip(directory / SECOND / "state.pt", 4000)
    flip(directory / "000003-epoch-3-step-9" / "state.pt", 4000)
    assert original[1] == bits(train(Checkpoint(directory)))
    assert 2 == len(list(directory.glob("corrupt-*")))


def test_a_corrupt_one_that_is_named_is_an_error(directory):
    """A run that names a checkpoint resumes from no other one."""
    flip(directory / SECOND / "state.pt", 4000)
    with pytest.raises(CheckpointError, match=r"state\.pt has another digest"):
        train(Checkpoint(directory, resume=directory / SECOND))
    assert (directory / SECOND).exists()


def test_no_intact_checkpoint_is_an_error(directory):
    """A run does not silently start again where there were checkpoints."""
    for name in (FIRST, SECOND):
        flip(directory / name / "state.pt", 4000)
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            train(Checkpoint(directory))
        assert f"none of the 2 checkpoints in {directory} is intact" in str(caught.value)
        assert "resume='never'" in str(caught.value)
    assert 2 == train(Checkpoint(directory, resume="never")).epoch_num


def test_the_listing_says_which_one_is_corrupt(directory, capsys):
    """It says what is wrong, and its exit status is 1."""
    assert 0 == main([str(directory)])
    flip(directory / SECOND / "state.pt", 4000)
    assert 1 == main([str(directory)])
    printed = capsys.readouterr().out
    assert f"{SECOND}  CORRUPT\n    state.pt has another digest\n" in printed


# -- the same with a naive saver -------------------------------------------------------------


def test_a_naive_saver_loads_a_flipped_bit(tmp_path, original):
    """Without digests a weight that was changed is loaded, without a message."""
    train(NaiveFileSaver(tmp_path), n_epochs=1)
    path = Path(tmp_path / "last.pt")
    weights = torch.load(path, weights_only=False)["model"]["0.weight"].numpy().tobytes()
    flip(path, 8 * (path.read_bytes().index(weights) + 3) + 1)
    assert original[1] != bits(train(NaiveFileSaver(tmp_path)))


def test_a_naive_saver_has_nothing_besides_a_truncated_file(tmp_path):
    """With one file only, no run resumes when it is damaged."""
    train(NaiveFileSaver(tmp_path), n_epochs=1)
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((RuntimeError, OSError)):
        train(NaiveFileSaver(tmp_path))
