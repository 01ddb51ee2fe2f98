"""Files that are replaced as a whole, and directories that belong to one object at a time."""

from __future__ import annotations

import os

import pytest

from ttl_core.files import DirectoryLock, write_atomically


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
