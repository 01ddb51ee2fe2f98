"""`ttl freeze` and `ttl doctor --against`: what a run needs, and what differs from it."""

import json
import os
import platform

import pytest
from packaging.requirements import Requirement

PYTHON = platform.python_version()


@pytest.fixture
def record(tmp_path, sound):
    """Return a function that writes the record of a run that was as it is here, but for changes.

    It has the components of the environment, with the versions of some of its distributions.
    """

    def write(python=PYTHON, good="1.0", plugin="good", **versions):
        component = {"name": "a", "plugin": plugin, "distribution": "acme-good", "version": good}
        by_hand = {"name": "step", "plugin": None, "distribution": None, "version": None}
        content = {
            "manifest": [by_hand, component],
            "python": {"version": python},
            "versions": {"acme_good": good, "acme-documented": "2.1", **versions},
        }
        (tmp_path / "run.json").write_text(json.dumps(content))
        return tmp_path

    return write


def lines_by_name(result):
    """Return the requirements that were printed, by name."""
    lines = [line for line in result.success.splitlines() if not line.startswith("#")]
    return {Requirement(line.partition("#")[0]).name: line for line in lines}


def test_freeze_lists_what_provides_components_and_what_that_requires(sound):
    """Each is a line that pip accepts; the digest of its files follows where there is one."""
    result = sound.ttl("freeze")
    assert result.success.startswith(f"# Python {PYTHON}\n")
    lines = lines_by_name(result)
    assert list(lines) == sorted(lines)
    assert {"acme-good", "acme-documented", "ttl-core", "torch", "pluggy"} < lines.keys()
    assert "pytest" not in lines  # an extra of the core
    assert "acme-good==1.0" == lines["acme-good"]  # whose RECORD has no hashes
    assert 64 == len(lines["pluggy"].partition("  # record: sha256:")[2])
    assert set() == result.imported


def test_freeze_of_a_run_lists_what_that_needs_in_the_versions_that_ran(sound, record):
    """Where something else is installed now, the line says so."""
    lines = lines_by_name(sound.ttl("freeze", record(good="0.9", pluggy="1.0")))
    assert "acme-documented" not in lines
    assert "acme-good==0.9  # installed: 1.0" == lines["acme-good"]
    assert lines["pluggy"].startswith("pluggy==1.0  # installed: 1.")
    assert "torch" in lines


def test_freeze_asks_for_versions_that_an_index_has(sound, record):
    """A local version, as of torch for processors alone, is none: the line says it behind."""
    lines = lines_by_name(sound.ttl("freeze", record(pluggy="1.0+cpu")))
    assert lines["pluggy"].startswith("pluggy==1.0  # 1.0+cpu, installed: 1.")


def test_freeze_of_a_folder_of_checkpoints_is_that_of_the_newest(sound, record):
    """As it is for what resumes."""
    for number, version in enumerate(["0.9", "0.8"]):
        record(good=version)
        folder = record() / "checkpoints" / f"{number}"
        folder.mkdir(parents=True)
        content = json.loads(record(good=version).joinpath("run.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({"components": content["manifest"]}))
        os.utime(folder / "manifest.json", (number, number))
    lines = lines_by_name(sound.ttl("freeze", folder.parent))
    assert "acme-good==0.8  # installed: 1.0" == lines["acme-good"]


def test_doctor_finds_no_difference_where_there_is_none(sound, record):
    """It says so, and ends with 0."""
    assert "no differences from what ran\n" == sound.ttl("doctor", "--against", record()).success


def test_doctor_finds_what_differs_from_what_ran(sound, record):
    """Python, versions, distributions and components, each with the fix; it ends with 1."""
    folder = record("3.9.1", "0.9", "better", pluggy="1.0", **{"acme-gone": "3", "numpy": "0.1"})
    result = sound.ttl("doctor", "--against", folder / "run.json")
    assert (1, "", set()) == (result.status, result.err, result.imported)
    assert f"Python 3.9.1 ran, and this is Python {PYTHON}" in result.text
    assert "acme-good==0.9 ran, and installed is 1.0 pip install 'acme-good==0.9'" in result.text
    assert "pluggy==1.0 ran, and installed is 1." in result.text
    assert "component 'better' of acme-good 0.9 ran, and acme-good 1.0 has none" in result.text
    assert "in other versions: acme-gone==3, numpy==0.1 install those" in result.text
    assert result.out.endswith("\n5 differences from what ran\n")


@pytest.mark.parametrize("command", [["freeze"], ["doctor", "--against"]])
def test_a_file_that_is_no_record_is_refused(sound, tmp_path, command):
    """The error names the file, and says what is expected."""
    (tmp_path / "run.json").write_text("{}")
    result = sound.ttl(*command, tmp_path)
    assert (1, "") == (result.status, result.out)
    assert f"ttl: {tmp_path / 'run.json'} cannot be read: it holds no manifest" in result.err
    assert "Give run.json, which the component 'run-folder' writes" in result.err
