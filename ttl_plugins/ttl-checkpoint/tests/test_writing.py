"""What is written into a checkpoint, and when it is announced."""

import datetime
import enum
import hashlib
import math
import os
import time

import pytest
import torch
from checkpoint_runs import (
    ENDS,
    N_BATCHES,
    Announced,
    CallAt,
    FailAfter,
    LogValues,
    make_loop,
    names_in,
    newest,
    positions,
)
from ttl_checkpoint.files import write_durably
from ttl_checkpoint.reading import read_state, verify
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, use
from ttl_core.testing import ComponentConformance, Step

# -- files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [3, 5], [1 << 18, 1], [7, 5 << 20, 2]])
def test_a_file_holds_what_was_written_and_its_digest(tmp_path, sizes):
    """Small pieces are written together, and all in order."""
    pieces = [os.urandom(size) for size in sizes]
    buffer = bytearray(max(sizes, default=0))

    def fill(file):
        for piece in pieces:  # from one buffer, which changes right after each write
            buffer[: len(piece)] = piece
            file.write(memoryview(buffer)[: len(piece)])

    record = write_durably(tmp_path / "file", fill)
    content = b"".join(pieces)
    assert content == (tmp_path / "file").read_bytes()
    assert {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} == record


# -- announcements --------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_announces_each_checkpoint(tmp_path, asynchronous):
    """checkpoint_saved fires for each, in order, when it is complete and on disk."""
    announced = Announced()
    make_loop(tmp_path, announced, every=1, keep=None, asynchronous=asynchronous).train(2)
    assert Store(tmp_path).everything() == announced.paths
    assert 6 == len(announced.paths)


def test_does_not_announce_what_a_failure_left(tmp_path):
    """checkpoint_saved does not fire for a directory crash-..."""
    announced = Announced()
    with pytest.raises(ZeroDivisionError):
        make_loop(tmp_path, announced, FailAfter(4)).train(2)
    assert ["000001-epoch-1-step-3"] == [path.name for path in announced.paths]


def test_announces_at_safe_points_and_at_the_end(tmp_path):
    """An asynchronous checkpoint is announced at a later safe point, never inside a batch."""
    announced_at = []

    class Record(LoopComponent):
        point = ""

        def on_batch_begin(self, loop):
            self.point = "batch"

        @hookimpl(tryfirst=True)
        def on_safe_point(self, loop):
            self.point = "safe point"

        @hookimpl(tryfirst=True)
        def on_train_end(self, loop):
            self.point = "end"

        @hookimpl
        def checkpoint_saved(self, loop, path):
            announced_at.append(self.point)

    make_loop(tmp_path, Record(), every=1, asynchronous=True).train(2)
    assert {"safe point", "end"} == set(announced_at)
    assert (6, "end") == (len(announced_at), announced_at[-1])


def test_announces_as_soon_as_one_is_written(tmp_path):
    """An asynchronous checkpoint is announced at the next safe point, not with the next one."""
    steps = []

    class Record(LoopComponent):
        @hookimpl
        def checkpoint_saved(self, loop, path):
            steps.append(loop.global_step)

    def wait(loop):
        if loop.global_step >= 50 and not steps:
            time.sleep(0.01)  # while it is written

    data = ComponentConformance.make_data(1) * 99
    config = {"every": 50, "asynchronous": True, "data": data}
    make_loop(tmp_path, Record(), CallAt("on_batch_begin", wait), **config).train(1)
    assert 50 < steps[0] < 99


# -- what is written ------------------------------------------------------------------------


def contents(directory):
    """Return what all checkpoints of a directory hold, except what differs between any two runs."""
    found = {}
    for path in Store(directory).everything():
        manifest, state = verify(path), read_state(path)
        for name in ("created", "run", "files", "sha256"):
            del manifest[name]
        del state["components"]["checkpoint"]["run"]
        for record in [*state["manifest"], *manifest["components"]]:
            del record["config"]  # of `checkpoint` itself
        found[path.name] = repr(manifest), bits(state)
    return found


def bits(value):
    """Return a nested value in a form that shows every bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(bits, value))
    return repr(value)


def test_an_asynchronous_checkpoint_holds_the_same(tmp_path, monkeypatch):
    """Written while training continues, on a slow disk, it holds the state at its safe point."""
    options = {"every": 1, "keep": None, "best": "train/cost"}
    make_loop(tmp_path / "sync", LogValues(3, 1), **options).train(2)
    write = Store.write
    wait = [0.0, 0.01, 0.03]

    def write_slowly(self, *args, **kwargs):
        wait.append(wait.pop(0))
        time.sleep(wait[-1])
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Store, "write", write_slowly)
    make_loop(tmp_path / "async", LogValues(3, 1), asynchronous=True, **options).train(2)
    assert 6 == len(names_in(tmp_path / "sync"))
    assert contents(tmp_path / "sync") == contents(tmp_path / "async")


def test_training_continues_while_an_asynchronous_checkpoint_is_written(tmp_path, monkeypatch):
    """Only the next checkpoint, or the end, waits for the one before."""
    seen = []
    write = Store.write

    def write_late(self, *args, **kwargs):
        deadline = time.monotonic() + 10
        while len(seen) < 2 and time.monotonic() < deadline:  # until two batches have begun
            time.sleep(0.001)
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Store, "write", write_late)
    begun = CallAt(
        "on_batch_begin", lambda loop: loop.global_step and seen.append(loop.global_step)
    )
    data = ComponentConformance.make_data(6)
    announced = Announced()
    make_loop(tmp_path, begun, announced, every=4, asynchronous=True, data=data).train(1)
    assert [1, 2, 3, 4, 5] == seen
    assert [(0, 4), (1, 6)] == positions(tmp_path)


def test_a_manifest_says_what_is_in_the_checkpoint(tmp_path):
    """It has the step, the epoch, the metrics as numbers, what ran and the environment."""
    values = {"a": torch.tensor([1.5]), "b": math.inf, "c": torch.ones(2), "d": 2, "e": math.nan}
    log = CallAt("on_epoch_end", lambda loop: loop.log(values, level="epoch"))
    loop = make_loop(tmp_path, log)
    loop.train(1)
    manifest = verify(newest(tmp_path))
    assert {
        "train/a": 1.5,
        "train/b": "inf",
        "train/d": 2.0,
        "train/e": "nan",
    } == manifest["metrics"]
    assert loop.manifest() == manifest["components"]
    assert (1, 3, "due", 1) == tuple(manifest[key] for key in ("epoch", "step", "reason", "format"))
    created = datetime.datetime.fromisoformat(manifest["created"])
    assert datetime.timedelta() <= datetime.datetime.now(datetime.UTC) - created
    assert str(torch.__version__) == manifest["environment"]["torch"]
    file = (newest(tmp_path) / "state.pt").stat()
    assert file.st_size == manifest["files"]["state.pt"]["bytes"]


def test_numbers_continue_where_some_are_missing(tmp_path):
    """The next number is after the highest one of all, so that none is used twice."""
    make_loop(tmp_path, keep=None).train(2)
    (tmp_path / "000001-epoch-1-step-3").rename(tmp_path / "corrupt-000041-epoch-1-step-3")
    make_loop(tmp_path, keep=None).train(3)
    assert "000042-epoch-3-step-9" == newest(tmp_path).name


def test_leaves_other_files_alone(tmp_path):
    """Files whose names are not those of checkpoints are neither read nor removed."""
    others = ["notes.txt", "1-epoch-1-step-1", "000001-epoch-1-step-3.bak", "last"]
    for name in others:
        (tmp_path / name).mkdir()
    make_loop(tmp_path, keep=2).train(4)
    assert set(others) <= set(names_in(tmp_path))
    assert [(3, 9), (4, 12)] == positions(tmp_path)


def test_a_configuration_of_another_type_can_be_loaded(tmp_path):
    """A run resumes also if its configuration is of a subclass of the usual type."""

    class Metric(enum.StrEnum):
        COST = "train/cost"

    for n_epochs in (1, 2):
        spec = use("checkpoint", directory=tmp_path, best=Metric.COST, signals=False)
        loop = TrainTestLoop(
            ComponentConformance.make_model(),
            [Step(), LogValues(2, 1), spec],
            ComponentConformance.make_data(N_BATCHES),
        )
        loop.train(n_epochs)
    assert ENDS == positions(tmp_path)


def test_a_run_that_was_rewound_resumes_behind_the_rewind(tmp_path):
    """It does not resume from the checkpoint of the epoch that it has left again."""

    class Rewind(LoopComponent):
        state = None

        def on_safe_point(self, loop):
            if loop.global_step == 1 and self.state is None:
                self.state = loop.state_dict()
            elif loop.global_step == 4:
                loop.rewind(self.state)

    def stop_rewound(loop):
        if loop.global_step == 2 and len(names_in(tmp_path)) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, Rewind(), CallAt("on_batch_begin", stop_rewound)).train(2)
    assert ["000001-epoch-1-step-3", "000002-epoch-0-step-2"] == names_in(tmp_path)
    resumed, steps = make_loop(tmp_path), []
    resumed.components.append(CallAt("on_optim_step", lambda loop: steps.append(loop.global_step)))
    resumed.train(2)
    assert [2, 3, 4, 5] == steps
