"""What ran, as files say it, and the digests of distributions."""

import json
from types import SimpleNamespace

import pytest

from ttl_core.cli.freeze import record_digest
from ttl_core.cli.ran import read_ran
from ttl_core.errors import ArgumentError

MANIFEST = [
    {"name": "step", "distribution": None, "version": None},
    {"name": "ema", "distribution": "TTL_Optim", "version": "0.1.0"},
]


@pytest.mark.parametrize(
    ("name", "content", "versions", "python"),
    [
        ("any.json", MANIFEST, {}, None),
        (
            "run.json",
            {
                "manifest": MANIFEST,
                "python": {"version": "3.12.1"},
                "versions": {"Numpy": "2", "ttl-optim": "0"},
            },
            {"numpy": "2"},
            "3.12.1",
        ),
        (
            "manifest.json",
            {"components": MANIFEST, "environment": {"torch": "2.13.0+cpu"}},
            {"torch": "2.13.0+cpu"},
            None,
        ),
    ],
)
def test_reads_runs_checkpoints_and_manifests(tmp_path, name, content, versions, python):
    """Also from their folder; a component says the version of its distribution itself."""
    (tmp_path / name).write_text(json.dumps(content))
    ran = read_ran(tmp_path / name)
    assert (MANIFEST, versions | {"ttl-optim": "0.1.0"}, python) == ran
    if name != "any.json":
        assert ran == read_ran(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"3", b"null", b"{}", b"[3]", b'[{"name": "a"}]', b'{"manifest": 3}']
)
def test_refuses_other_files(tmp_path, content):
    """Whatever they hold, the error is one of ttl with the name of the file."""
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ArgumentError, match=r"run\.json cannot be read"):
        read_ran(tmp_path)


def test_refuses_a_folder_without_a_record(tmp_path):
    """A folder, and a file that is missing, are refused in the same words."""
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(ArgumentError, match=r"Give run\.json"):
            read_ran(path)


def digest(record):
    """Return the digest of a distribution with a RECORD."""
    return record_digest(SimpleNamespace(read_text=lambda name: record))


FILES = "a.py,sha256=1,10\nb.py,sha256=2,10\n"


def test_a_digest_is_of_the_hashes_of_files():
    """It depends on their names and hashes, and not on what an installer adds, nor on the order."""
    added = "../../bin/a,sha256=9,1\na-1.dist-info/INSTALLER,sha256=8,1\na-1.dist-info/RECORD,,\n"
    assert digest(FILES) == digest(added + "b.py,sha256=2,10\na.py,sha256=1,10\n")
    assert digest(FILES) != digest(FILES.replace("sha256=1", "sha256=3"))
    assert digest(FILES) != digest(FILES.replace("a.py", "c.py"))


@pytest.mark.parametrize("record", [None, "", "a.py,,\n"])
def test_without_hashes_there_is_no_digest(record):
    """No RECORD, an empty one, and one without hashes."""
    assert digest(record) is None
