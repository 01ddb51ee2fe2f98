"""Files that are replaced as a whole, and directories that belong to one object at a time."""

from __future__ import annotations

import os

import pytest

from ttl_core import ArgumentError, RunError, files
from ttl_core.files import DirectoryLock, claim_directory, write_atomically


def test_a_file_has_the_new_content_and_nothing_is_left_beside_it(tmp_path):
    """Also where there was none before."""
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "a", content)
        assert {"a": content} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_file_that_cannot_be_replaced_is_as_it_was(tmp_path, monkeypatch):
    """What was written of the new content is removed."""

    def fail(*args):
        raise OSError("disk full")

    write_atomically(tmp_path / "a", b"first")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a", b"second")
    assert {"a": b"first"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_directory_is_locked_by_one_object_at_a_time(tmp_path):
    """It is free again when that has released it."""
    one, other = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    assert [True, False] == [one.acquire(), other.acquire()]
    assert (True, False) == (one.is_held, other.is_held)
    one.release()
    assert other.acquire()
    other.release()


def test_files_of_two_names_are_two_locks(tmp_path):
    """As those of a run and of its checkpoints, in one directory."""
    one, other = DirectoryLock(tmp_path), DirectoryLock(tmp_path, ".other")
    assert [True, True] == [one.acquire(), other.acquire()]
    one.release()
    other.release()


def test_a_lock_leaves_no_file_behind(tmp_path):
    """Unless the process is killed."""
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    lock.release()
    assert [] == list(tmp_path.iterdir())


def test_a_lock_is_on_the_file_that_others_see(tmp_path, monkeypatch):
    """Not on one that was removed, by the object that had it, between opening and locking it."""
    lock_file, descriptors = files._lock, []

    def remove_and_lock(descriptor):
        if not descriptors:
            (tmp_path / ".lock").unlink()
        descriptors.append(descriptor)
        lock_file(descriptor)

    monkeypatch.setattr(files, "_lock", remove_and_lock)
    lock = DirectoryLock(tmp_path)
    assert lock.acquire()
    assert (2, [".lock"]) == (len(descriptors), [path.name for path in tmp_path.iterdir()])
    lock.release()


def test_a_directory_is_claimed_by_one_component_of_a_name_at_a_time(tmp_path):
    """Others have locks of their own."""
    locks = [claim_directory(name, tmp_path / "a") for name in ("one", "other")]
    with pytest.raises(RunError) as caught:
        claim_directory("one", tmp_path / "a")
    assert (
        f"'one' cannot write to {tmp_path / 'a'}: another run that is under way does, or another "
        "component or process of this one. Wait for it, or give each a directory of its own: "
        "use('one', directory=...)"
    ) == str(caught.value)
    for lock in locks:
        lock.release()
    claim_directory("one", tmp_path / "a").release()


def test_a_directory_that_cannot_be_locked_is_refused(tmp_path):
    """As one that cannot be written to."""
    (tmp_path / ".one.lock").mkdir()
    with pytest.raises(ArgumentError, match=r"'one' cannot write to its directory .* Choose anoth"):
        claim_directory("one", tmp_path)
