"""Checkpoints that were made to do harm: nothing in them runs, and nothing outside is read."""

import hashlib
import io
import json
import os
import shutil
import signal
import tracemalloc
import zipfile

import pytest
import torch
from checkpoint_runs import FIRST, SECOND, train
from naive_savers import NaiveFileSaver
from ttl_checkpoint import Checkpoint, CheckpointError
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.errors import CorruptError
from ttl_checkpoint.reading import read_state, verify

from ttl_core import TTLError

PARTS = ("position", "model", "variables", "metrics", "components", "random", "data", "environment")


@pytest.fixture
def directory(tmp_path):
    """Return a directory with the checkpoints of two epochs."""
    train(Checkpoint(tmp_path / "runs"))
    return tmp_path / "runs"


def seal(checkpoint, **changes):
    """Write a manifest with matching digests for what is in a checkpoint, as an attacker could."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    content = (checkpoint / "state.pt").read_bytes()
    record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {**manifest, "files": {"state.pt": record}, **changes}
    (checkpoint / "manifest.json").write_bytes(sealed(manifest))


def sealed(manifest):
    """Return a manifest in the format that is written, with its own digest."""
    plain = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(plain, indent=1, sort_keys=True)
    plain["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(plain, indent=1, sort_keys=True).encode() + b"\n"


class Command:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def assert_refused(directory, corrupt=SECOND):
    """Check that a checkpoint is refused when it is named, else the one before is used."""
    with pytest.raises(CheckpointError):
        train(Checkpoint(directory, resume=directory / corrupt))
    assert 2 == train(Checkpoint(directory)).epoch_num
    assert f"corrupt-{corrupt}" in os.listdir(directory)
    assert verify(directory / "000003-epoch-2-step-6")


def assert_not_loaded(directory, checkpoint=SECOND):
    """Check that a checkpoint with the right digest is an error, and stays where it is."""
    for resume in ("auto", directory / checkpoint):
        with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
            train(Checkpoint(directory, resume=resume))
        assert not isinstance(caught.value, CorruptError)
    assert checkpoint in os.listdir(directory)
    others = sorted(set(os.listdir(directory)) - {checkpoint, ".lock"})
    assert 2 == train(Checkpoint(directory, resume=directory / others[0])).epoch_num


def test_sealing_alone_is_accepted(directory):
    """The manifests in these tests are refused for their content, not for their form."""
    seal(directory / SECOND)
    assert verify(directory / SECOND)


def test_a_pickle_that_runs_a_command_runs_nothing(directory, tmp_path):
    """Not even where its digests match."""
    canary = tmp_path / "canary"
    torch.save({"model": Command(canary)}, directory / SECOND / "state.pt")
    seal(directory / SECOND)
    assert verify(directory / SECOND)
    assert_not_loaded(directory)
    assert not canary.exists()


def test_a_plain_pickle_runs_nothing(directory, tmp_path):
    """Nor in the format of pickle itself, which torch also reads."""
    import pickle

    canary = tmp_path / "canary"
    (directory / SECOND / "state.pt").write_bytes(pickle.dumps(Command(canary)))
    seal(directory / SECOND)
    assert_not_loaded(directory)
    assert not canary.exists()


def test_a_naive_saver_runs_the_command(tmp_path):
    """The danger in the tests above is real."""
    canary = tmp_path / "canary"
    torch.save({"model": Command(canary)}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="not a state of a loop"):
        train(NaiveFileSaver(tmp_path))
    assert canary.exists()


@pytest.mark.parametrize("value", [[1, 2], "text", torch.ones(2)], ids=["list", "str", "tensor"])
def test_something_else_than_a_state_is_refused(directory, value):
    """A file that can be loaded, but holds no state."""
    torch.save(value, directory / SECOND / "state.pt")
    seal(directory / SECOND)
    assert_not_loaded(directory)


@pytest.mark.parametrize(
    "name", ["../secret.pt", "/etc/passwd", "sub/state.pt", "state.pt/../../secret.pt", "", "."]
)
def test_a_manifest_names_no_file_but_the_state(directory, name):
    """Neither elsewhere nor by another name, alone or besides the state."""
    record = json.loads((directory / SECOND / "manifest.json").read_text())["files"]["state.pt"]
    for files in ({name: record}, {"state.pt": record, name: record}):
        seal(directory / SECOND, files=files)
        with pytest.raises(CorruptError, match=r"manifest\.json is not what was written"):
            verify(directory / SECOND)
    assert_refused(directory)


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_link_in_place_of_a_file_is_not_followed(directory, tmp_path, file):
    """Even if its target is intact."""
    outside = tmp_path / file
    shutil.move(directory / SECOND / file, outside)
    (directory / SECOND / file).symlink_to(outside)
    with pytest.raises(CorruptError, match="is a link"):
        read_state(directory / SECOND)
    assert_refused(directory)


def test_a_link_in_place_of_a_checkpoint_is_not_followed(directory, tmp_path):
    """A checkpoint is a directory itself."""
    shutil.move(directory / SECOND, tmp_path / "outside")
    (directory / SECOND).symlink_to(tmp_path / "outside", target_is_directory=True)
    assert_refused(directory)
    assert verify(tmp_path / "outside")


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(directory, file):
    """Reading it would wait for a writer forever."""
    (directory / SECOND / file).unlink()
    os.mkfifo(directory / SECOND / file)
    with pytest.raises(CorruptError, match="is no regular file"):
        verify(directory / SECOND)
    assert_refused(directory)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"files": ' * 100_000,
        b"null",
        b"[]",
        b'"state.pt"',
        b'{"files": null}',
        b'{"files": {"state.pt": null}}',
        b'{"files": []}',
        b"\xff\xfe",
        b"9" * 10_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_manifest_that_is_something_else_is_corrupt(directory, text):
    """However deep, long or odd it is."""
    (directory / SECOND / "manifest.json").write_bytes(text)
    with pytest.raises(CorruptError, match=r"manifest\.json is not what was written"):
        verify(directory / SECOND)
    assert_refused(directory)


def test_a_duplicate_key_is_corrupt(directory):
    """Of two values, some readers see one and some the other."""
    path = directory / SECOND / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"step": 6', b'"step": 6, "step": 6'))
    with pytest.raises(CorruptError):
        verify(directory / SECOND)


def test_a_later_format_is_no_corruption(directory):
    """What a newer version wrote keeps its name, and the message says what to install."""
    seal(directory / SECOND, format=2)
    with pytest.raises(CheckpointError, match="has format 2, this ttl-checkpoint reads 1"):
        train(Checkpoint(directory))
    assert (directory / SECOND).exists()


def test_a_state_with_a_global_of_a_module_is_refused(directory):
    """Torch refuses globals, also harmless ones."""
    stream = io.BytesIO()
    torch.save({"model": os.path.join}, stream)
    (directory / SECOND / "state.pt").write_bytes(stream.getvalue())
    seal(directory / SECOND)
    with pytest.raises(CheckpointError, match=r"torch refuses state\.pt"):
        read_state(directory / SECOND)


def test_a_state_that_torch_refuses_without_a_reason_is_explained(directory, monkeypatch):
    """The message then names the type of torch's error."""

    def fail(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(CheckpointError, match=r"torch refuses state\.pt: AssertionError"):
        read_state(directory / SECOND)


def test_names_in_the_archive_are_not_used_as_paths(directory, tmp_path):
    """Nothing is unpacked, and what is compressed a thousandfold is refused."""
    with zipfile.ZipFile(directory / SECOND / "state.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/../../../canary", "here")
    seal(directory / SECOND)
    assert_not_loaded(directory)
    assert [] == [name for _, _, names in os.walk(tmp_path) for name in names if "canary" in name]


# -- other files in the directory -----------------------------------------------------------


class HangsError(Exception):
    """A test that has not ended in time."""


@pytest.fixture
def in_time():
    """End a test that hangs."""

    def fail(number, frame):
        raise HangsError

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(3)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_huge_manifest_is_not_read(directory):
    """A file of any size is refused without being read into memory."""
    os.truncate(directory / SECOND / "manifest.json", 100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            verify(directory / SECOND)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_manifest_that_would_not_be_read_is_not_written(tmp_path, monkeypatch):
    """C10: the limit holds when saving too, so that no checkpoint is lost by it."""
    monkeypatch.setattr("ttl_checkpoint.manifest.MAX_BYTES", 500)
    with pytest.raises(CheckpointError, match="log fewer metrics"):
        train(Checkpoint(tmp_path))
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("part", ["model", "components", "manifest"])
def test_weights_of_a_forged_state_are_an_error_of_ttl(directory, capsys, part):
    """C10: export explains what a state lacks."""
    state = read_state(directory / SECOND)
    del state[part]
    torch.save(state, directory / SECOND / "state.pt")
    seal(directory / SECOND)
    target = directory / "weights.safetensors"
    assert 1 == main(["export", str(directory / SECOND), "-o", str(target)])
    assert "cannot be loaded" in (text := capsys.readouterr().err) or f"lacks {part!r}" in text
    assert not target.exists()


def test_a_link_in_place_of_the_lock_is_not_followed(directory, tmp_path):
    """Nothing is created outside of the directory."""
    (directory / ".lock").symlink_to(tmp_path / "canary")
    with pytest.raises(CheckpointError, match="no checkpoint can be written to"):
        train(Checkpoint(directory))
    assert not (tmp_path / "canary").exists()


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(directory, in_time):
    """The run is refused before work starts."""
    os.mkfifo(directory / ".lock")
    with pytest.raises(CheckpointError, match="no checkpoint can be written to"):
        train(Checkpoint(directory))


def test_a_link_in_place_of_a_leftover_is_not_followed(directory, tmp_path):
    """Only what is in the directory itself is removed, else it is an error."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (directory / f".tmp-{SECOND}").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="no checkpoint can be written to"):
        train(Checkpoint(directory))
    assert ["kept"] == os.listdir(tmp_path / "outside")


COMPONENT = {"name": "a", "version": None, "enabled": True}
ODD = [
    *({"metrics": None}, {"components": 3}, {"metrics": {"\ud800": 1.0}}, {"epoch": None}),
    *({"metrics": {"a": 10**400}}, {"metrics": {"a": None}}, {"best": 10**400}, {"epoch": 10**400}),
    *({"components": [{**COMPONENT, key: 5}]} for key in COMPONENT),
    *({"components": [5]}, {"components": [None]}, {"components": [{}]}, {"step": 7}),
    {"reason": "exception"},
]


@pytest.mark.parametrize("changes", ODD, ids=lambda changes: str(changes)[:60])
def test_the_listing_survives_odd_manifests(directory, capsys, changes):
    """C10: an odd manifest is corrupt, even if its digest matches, and hides no other one."""
    seal(directory / SECOND, **changes)
    assert 1 == main([str(directory)])
    printed = capsys.readouterr().out
    assert f"{SECOND}  CORRUPT" in printed
    assert f"{FIRST}  epoch 1" in printed


def test_the_listing_survives_any_error(directory, capsys, monkeypatch):
    """C10: whatever goes wrong with one, the others are listed."""

    def fail(path):
        if path.name == FIRST:
            raise RecursionError
        return verify(path)

    monkeypatch.setattr("ttl_checkpoint.command.verify", fail)
    assert 1 == main([str(directory)])
    printed = capsys.readouterr().out
    assert f"{FIRST}  UNREADABLE\n    RecursionError\n{SECOND}  epoch 2" in printed


@pytest.mark.parametrize("name", [SECOND.replace("6", "7"), SECOND.replace("2-", "3-"), "000009"])
def test_a_checkpoint_by_another_name_is_corrupt(directory, name):
    """C10: the name says which epoch and step it is of, and is compared with the manifest."""
    other = name if "-" in name else f"crash-{SECOND}"
    (directory / SECOND).rename(directory / other)
    with pytest.raises(CorruptError, match="its manifest"):
        verify(directory / other)


def test_a_crash_by_another_name_is_not_resumed_from(directory):
    """C10: the state of a failure, renamed, is corrupt, and the one before is used."""
    seal(directory / SECOND, reason="exception")
    assert_refused(directory)


def test_a_copy_may_have_any_name(directory):
    """A checkpoint that a user has named is itself."""
    (directory / SECOND).rename(directory / "good")
    assert 2 == train(Checkpoint(directory / "b", resume=directory / "good")).epoch_num


def test_the_listing_prints_no_control_characters(directory, capsys):
    """A name in a manifest cannot act on a terminal."""
    seal(directory / SECOND, metrics={"\x1b[2J": 1.0})
    main([str(directory)])
    assert "\x1b" not in capsys.readouterr().out


ESCAPES = "\x1b[2J\x9b\r\u202e\u2028"


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"a": ESCAPES}},
        {"components": [{**COMPONENT, "name": ESCAPES}]},
        {"components": [{**COMPONENT, "version": ESCAPES}]},
        {},
    ],
    ids=["metric", "name", "version", "file"],
)
def test_the_listing_escapes_control_characters(directory, capsys, caplog, changes):
    """C10: nor can values, names and versions of components, and names of added files."""
    seal(directory / SECOND, **changes)
    if not changes:
        (directory / SECOND / ESCAPES).touch()
        os.close(os.open(os.fsencode(directory / SECOND) + b"/\xff", os.O_CREAT))
    assert int(not changes) == main([str(directory)])
    train(Checkpoint(directory))
    for text in (capsys.readouterr().out, *caplog.messages):
        assert not set(text) & set(ESCAPES) - set("[2J")
        text.encode()


def nested(depth):
    """Return a list in a list in a list."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


RECORD = {"name": "a", "distribution": None, "version": None, "class": "A", "enabled": True}
FORGED = {
    **{
        f"{part} {value!r}": {part: value}
        for part in (*PARTS, "manifest")
        for value in (5, "text", [None])
    },
    "position without a key": {"position": {}},
    "manifest without a record": {"manifest": []},
    **{f"record {key}": {"manifest": [{**RECORD, key: 5}]} for key in RECORD},
    "record of another type": {"manifest": [5]},
    "too deep": {"metrics": {"a": nested(400)}},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=FORGED)
def test_a_forged_state_is_an_error_of_ttl(directory, changes):
    """C10: a state of another shape, with right digests, is explained before it is used."""
    state = read_state(directory / SECOND)
    torch.save({**state, **changes}, directory / SECOND / "state.pt")
    seal(directory / SECOND)
    assert_not_loaded(directory)


@pytest.mark.parametrize("key", ["train_num", "n_epochs_done", "is_trained", "global_step"])
def test_a_forged_position_is_an_error_of_ttl(directory, key):
    """C10: so is a position with a value of another type."""
    state = read_state(directory / SECOND)
    state["position"][key] = "text"
    torch.save(state, directory / SECOND / "state.pt")
    seal(directory / SECOND)
    assert_not_loaded(directory)


def test_a_compressed_state_is_not_unpacked(directory):
    """C10: what is larger in memory than on disk is refused before it is read."""
    path = directory / SECOND / "state.pt"
    torch.save({"model": torch.zeros(10_000_000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 1_000_000
    seal(directory / SECOND)
    del members, content
    with pytest.raises(CheckpointError, match="it is compressed"):
        read_state(directory / SECOND)


@pytest.mark.parametrize("name", ["run", "best"])
def test_saving_survives_odd_manifests(directory, name):
    """A manifest that lacks something does not prevent saving beside it."""
    manifest = json.loads((directory / SECOND / "manifest.json").read_text())
    del manifest[name]
    (directory / SECOND / "manifest.json").write_bytes(sealed(manifest))
    assert 3 == train(Checkpoint(directory), n_epochs=3).epoch_num


@pytest.mark.parametrize("name", ["components", "manifest", "model", "position"])
def test_a_state_that_lacks_something_is_explained(directory, name):
    """An incomplete state is an error of ttl, not one of Python."""
    state = read_state(directory / SECOND)
    del state[name]
    torch.save(state, directory / SECOND / "state.pt")
    seal(directory / SECOND)
    with pytest.raises(TTLError):
        train(Checkpoint(directory), n_epochs=3)
