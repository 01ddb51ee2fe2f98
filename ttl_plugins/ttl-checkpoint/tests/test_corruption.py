"""Checkpoints that are no longer what was written: found, set aside, and the one before is used."""

import json
import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from naive import NaiveFile
from ttl_checkpoint import Checkpoint, CheckpointError
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.store import CorruptError, verify
from two_epochs import FIRST, SECOND, train

FILES = ("state.pt", "manifest.json")


def bits(loop):
    """Return the weights, for comparing."""
    return [parameter.tolist() for parameter in loop.model.parameters()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a directory with the checkpoints of two epochs, and the weights after them."""
    directory = tmp_path_factory.mktemp("made")
    return directory, bits(train(Checkpoint(directory)))


@pytest.fixture
def directory(made, tmp_path):
    """Return a copy of that directory, to do damage to."""
    return shutil.copytree(made[0], tmp_path / "copy")


def flip(path, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def assert_found_and_mended(directory, made, caplog):
    """Check that the second checkpoint is found corrupt, and the run goes on from the first."""
    with pytest.raises(CorruptError):
        verify(directory / SECOND)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert made[1] == bits(train(Checkpoint(directory)))
    told = "\n".join(caplog.messages)
    assert f"{SECOND} is corrupt: " in told
    assert f"It is set aside as corrupt-{SECOND}" in told
    assert f"going on from {directory / FIRST}" in told
    assert (directory / f"corrupt-{SECOND}").exists()
    assert verify(directory / "000003-epoch-2-step-6")


def test_whole_ones_are_verified(made):
    """What was written is found to be what was written."""
    assert [6, 3] == [verify(made[0] / name)["step"] for name in (SECOND, FIRST)]


@pytest.mark.parametrize("file", FILES)
def test_a_file_truncated_anywhere_is_found(directory, made, caplog, file):
    """At twenty points, from an empty file to one that lacks its last byte."""
    whole = (made[0] / SECOND / file).read_bytes()
    for i in range(20):
        copy = shutil.copytree(directory, directory.with_name(f"cut-{i}"))
        (copy / SECOND / file).write_bytes(whole[: (len(whole) - 1) * i // 19])
        assert_found_and_mended(copy, made, caplog)


@pytest.mark.parametrize("file", FILES)
def test_each_of_a_hundred_flipped_bits_is_found(directory, made, caplog, file):
    """Wherever a single bit of a file is flipped."""
    draw, size = random.Random(file), (made[0] / SECOND / file).stat().st_size
    for bit in draw.sample(range(8 * size), 100):
        copy = shutil.copytree(directory, directory.with_name(f"flip-{bit}"))
        flip(copy / SECOND / file, bit)
        assert_found_and_mended(copy, made, caplog)
        shutil.rmtree(copy)


def test_every_bit_where_a_manifest_begins_counts(directory):
    """No spelling of the same JSON passes for what was written."""
    manifest = directory / SECOND / "manifest.json"
    for bit in range(800):
        flip(manifest, bit)
        with pytest.raises(CorruptError):
            verify(directory / SECOND)
        flip(manifest, bit)
    assert verify(directory / SECOND)


def test_a_digest_that_fits_no_longer_helps_nobody(directory):
    """A manifest that was edited is corrupt, even if it is proper JSON."""
    path = directory / SECOND / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    with pytest.raises(CorruptError, match=r"manifest\.json is not what was written"):
        verify(directory / SECOND)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_found(directory, made, caplog, file):
    """A checkpoint that lacks a file."""
    (directory / SECOND / file).unlink()
    assert_found_and_mended(directory, made, caplog)


@pytest.mark.parametrize("name", ["extra.pt", ".hidden", "state.pt~"])
def test_an_added_file_is_found(directory, made, caplog, name):
    """A checkpoint that has a file too many."""
    (directory / SECOND / name).touch()
    assert_found_and_mended(directory, made, caplog)


def test_an_empty_directory_is_found(directory, made, caplog):
    """A checkpoint that is a name only."""
    shutil.rmtree(directory / SECOND)
    (directory / SECOND).mkdir()
    assert_found_and_mended(directory, made, caplog)


def test_a_file_in_place_of_a_directory_is_found(directory, made, caplog):
    """A checkpoint that is a file."""
    shutil.rmtree(directory / SECOND)
    (directory / SECOND).write_text("")
    assert_found_and_mended(directory, made, caplog)


def test_files_of_another_checkpoint_are_found(directory, made, caplog):
    """A state that is whole, but not this one's."""
    shutil.copy(directory / FIRST / "state.pt", directory / SECOND / "state.pt")
    assert_found_and_mended(directory, made, caplog)


def test_what_a_killed_save_left_is_cleared_up(directory, made):
    """A temporary directory is not looked at, and gone when the next run has begun."""
    leftover = directory / ".tmp-000003-epoch-3-step-9"
    shutil.copytree(directory / SECOND, leftover)
    (leftover / "manifest.json").unlink()
    assert made[1] == bits(train(Checkpoint(directory)))
    assert not leftover.exists()


def test_the_newest_two_may_be_corrupt(directory, made):
    """The newest whole one is used, however many after it are not."""
    train(Checkpoint(directory), n_epochs=3)
    flip(directory / SECOND / "state.pt", 4000)
    flip(directory / "000003-epoch-3-step-9" / "state.pt", 4000)
    assert made[1] == bits(train(Checkpoint(directory)))
    assert 2 == len(list(directory.glob("corrupt-*")))


def test_a_corrupt_one_that_is_named_is_an_error(directory):
    """Whoever asks for a checkpoint gets that one or none."""
    flip(directory / SECOND / "state.pt", 4000)
    with pytest.raises(CheckpointError, match=r"the digest of state\.pt is another one"):
        train(Checkpoint(directory, resume=directory / SECOND))
    assert (directory / SECOND).exists()


def test_none_that_is_whole_is_an_error(directory):
    """A run does not begin anew in silence where there were checkpoints."""
    for name in (FIRST, SECOND):
        flip(directory / name / "state.pt", 4000)
    for _ in range(2):
        with pytest.raises(CheckpointError) as caught:
            train(Checkpoint(directory))
        assert f"none of the 2 checkpoints in {directory} is whole" in str(caught.value)
        assert "resume='never'" in str(caught.value)
    assert 2 == train(Checkpoint(directory, resume="never")).epoch_num


def test_the_listing_says_which_one_is_corrupt(directory, capsys):
    """It names what is wrong, and its exit status tells scripts."""
    assert 0 == main([str(directory)])
    flip(directory / SECOND / "state.pt", 4000)
    assert 1 == main([str(directory)])
    printed = capsys.readouterr().out
    assert f"{SECOND}  CORRUPT\n    the digest of state.pt is another one\n" in printed


# -- what a plain saver makes of it ----------------------------------------------------------


def test_a_plain_saver_loads_a_flipped_bit(tmp_path, made):
    """Without digests a weight that was changed is loaded, and nobody is told."""
    train(NaiveFile(tmp_path), n_epochs=1)
    path = Path(tmp_path / "last.pt")
    weights = torch.load(path, weights_only=False)["model"]["0.weight"].numpy().tobytes()
    flip(path, 8 * (path.read_bytes().index(weights) + 3) + 1)
    assert made[1] != bits(train(NaiveFile(tmp_path)))


def test_a_plain_saver_has_nothing_before_a_truncated_file(tmp_path):
    """With one file, a damaged one is the end."""
    train(NaiveFile(tmp_path), n_epochs=1)
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((RuntimeError, OSError)):
        train(NaiveFile(tmp_path))
