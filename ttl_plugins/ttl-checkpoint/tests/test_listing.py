"""What `ttl checkpoints DIRECTORY` prints."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from ttl_checkpoint import Checkpoint
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.command import _size_text
from ttl_checkpoint.manifest import encode
from ttl_checkpoint.reading import verify
from ttl_checkpoint.store import Store

from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.cli import main as ttl
from ttl_core.testing import ComponentConformance, Step


class Log(LoopComponent):
    """A component that logs values at the end of each training epoch."""

    def __init__(self, **values):
        self.values = values

    def on_epoch_end(self, loop):
        loop.log(self.values, level="epoch")


class Fail(LoopComponent):
    def on_batch_end(self, loop):
        if loop.global_step == 8:
            raise ZeroDivisionError


def train(directory, *others, n_epochs=2, saver=None):
    """Train, and save a checkpoint after each epoch."""
    saver = saver or use("checkpoint", directory=directory, signals=False)
    TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), *others, saver],
        ComponentConformance.make_data(),
    ).train(n_epochs)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def entries(text):
    """Return the lines of each checkpoint in a listing."""
    found = []
    for line in text.splitlines():
        if line.startswith(" "):
            found[-1].append(line.strip())
        elif line:
            found.append([line])
    return found


def test_only_one_checkpoint_is_the_best(tmp_path, capsys):
    """Those that were until there was a better one are told apart."""
    costs = iter([3, 2, 1])
    better = LoopComponent()
    better.on_epoch_end = lambda loop: loop.log({"cost": next(costs)}, level="epoch")
    saver = use("checkpoint", directory=tmp_path, best="train/cost", signals=False)
    train(tmp_path, better, n_epochs=3, saver=saver)
    assert 0 == main([str(tmp_path)])
    reasons = [entry[0].split("  ")[3] for entry in entries(capsys.readouterr().out)]
    assert ["was best", "was best", "best"] == reasons


def test_shows_what_each_checkpoint_holds(tmp_path, capsys):
    """Epoch, step, reason, size, whether it is verified, the metrics, and what ran, once."""
    train(tmp_path, Log(loss=0.123456, cost=2))
    assert 0 == main([str(tmp_path)])
    ran = f"step, log, checkpoint {version('ttl-checkpoint')}"
    size = (Store(tmp_path).checkpoints()[0] / "state.pt").stat().st_size / 1e3
    titles = (
        "000001-epoch-1-step-3  epoch 1  step 3",
        "000002-epoch-2-step-6  epoch 2  step 6",
    )
    expected = [
        [f"{title}  due  {size:.1f} kB  verified", "train/cost 2, train/loss 0.1235"]
        for title in titles
    ]
    expected[0].append(ran)
    assert expected == entries(capsys.readouterr().out)


def test_shows_what_ran_where_it_changed(tmp_path, capsys):
    """Once for the checkpoints of one list of components, in the order of the listing."""
    train(tmp_path, n_epochs=1)
    train(tmp_path, Log(loss=1), n_epochs=3)
    main([str(tmp_path)])
    ran = [entry[-1].partition(", checkpoint")[0] for entry in entries(capsys.readouterr().out)]
    assert ["step", "step, log"] == [each for each in ran if each.startswith("step")]


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0.0 kB"), (1234, "1.2 kB"), (4.2e7, "42.0 MB"), (3e9, "3.0 GB")]
)
def test_sizes_are_shown_in_the_unit_that_fits(n_bytes, text):
    """A small one is not 0.0 MB."""
    assert text == _size_text(n_bytes)


def test_lists_one_checkpoint(tmp_path, capsys):
    """The path of one checkpoint lists that one."""
    train(tmp_path)
    path = Store(tmp_path).checkpoints()[0]
    assert 0 == main([str(path)])
    assert [path.name] == [entry[0].split()[0] for entry in entries(capsys.readouterr().out)]


def test_lists_those_in_the_folder_of_a_run(tmp_path, capsys):
    """Where the component puts them when no directory is given."""
    train(tmp_path / "checkpoints", n_epochs=1)
    assert 0 == main([str(tmp_path)])
    assert "000001-epoch-1-step-3  epoch 1" in capsys.readouterr().out
    assert 0 == main([str(tmp_path), "--export", str(tmp_path / "weights.safetensors")])


def test_leaves_out_disabled_components(tmp_path, capsys):
    """It lists as what ran what was enabled."""
    loop = TrainTestLoop(
        ComponentConformance.make_model(),
        [Step(), Log(), Checkpoint(tmp_path, signals=False)],
        ComponentConformance.make_data(),
    )
    loop.components.disable("log")
    loop.train(1)
    main([str(tmp_path)])
    assert "    step, checkpoint " in capsys.readouterr().out


def test_fits_into_eighty_columns(tmp_path, capsys):
    """With many metrics and components, no line is longer, and no item is broken."""
    values = {f"a-metric-with-a-name-{n}": n + 1 / 3 for n in range(20)}
    others = [type(f"Component{n}", (LoopComponent,), {})() for n in range(20)]
    train(tmp_path, Log(**values), *others)
    main([str(tmp_path)])
    text = capsys.readouterr().out
    assert 80 >= max(map(len, text.splitlines()))
    items = [item.strip(",") for line in text.splitlines()[1:] for item in line.split(", ")]
    assert {f"train/{name} {value:.4g}" for name, value in values.items()} <= {
        item.strip() for item in items
    }


def test_prints_no_empty_lines(tmp_path, capsys):
    """Without metrics there is no line for them."""
    train(tmp_path)
    main([str(tmp_path)])
    assert "" not in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", ["top[5]", "[/red]", "a\N{NO-BREAK SPACE}b", "größe", "x" * 90])
def test_shows_metrics_of_any_name(tmp_path, capsys, name):
    """A name is shown as it is, whatever characters it has."""
    train(tmp_path, Log(**{name: 1.0}))
    assert 0 == main([str(tmp_path)])
    text = capsys.readouterr().out.replace("\n    ", "")
    assert f"train/{name} 1".replace("\N{NO-BREAK SPACE}", " ") in text


def test_shows_metrics_that_are_not_finite(tmp_path, capsys):
    """NaN and infinity are shown as such."""
    train(tmp_path, Log(a=float("nan"), b=float("-inf"), c=torch.tensor(1e-9)), n_epochs=1)
    main([str(tmp_path)])
    assert "train/a nan, train/b -inf, train/c 1e-09" == entries(capsys.readouterr().out)[0][1]


def test_shows_which_models_are_not_finite(tmp_path, capsys):
    """A16: so that the one to resume from is found."""

    class Poison(LoopComponent):
        def on_epoch_end(self, loop):
            if loop.epoch_num == 1:
                torch.nn.init.constant_(loop.model[0].bias, float("nan"))

    train(tmp_path, Poison())
    assert 0 == main([str(tmp_path)])
    first, second = entries(capsys.readouterr().out)
    assert (first[0].endswith("verified"), second[0].endswith("verified  NOT FINITE")) == (
        True,
    ) * 2


def damage(path):
    """Change one bit in the middle of a checkpoint's state."""
    data = bytearray((path / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "state.pt").write_bytes(data)


def test_says_which_one_is_corrupt(tmp_path, capsys):
    """A corrupt one is marked, with what is wrong, and the exit status is 1."""
    train(tmp_path)
    damage(Store(tmp_path).checkpoints()[1])
    assert 1 == main([str(tmp_path)])
    bad, good = entries(capsys.readouterr().out)
    assert ["000001-epoch-1-step-3  CORRUPT", "state.pt has another digest"] == bad
    assert good[0].endswith("verified")


def test_says_which_file_was_added(tmp_path, capsys):
    """A name with brackets in it is shown as it is."""
    train(tmp_path, n_epochs=1)
    (Store(tmp_path).checkpoints()[0] / "[red]").touch()
    assert 1 == main([str(tmp_path)])
    assert [["000001-epoch-1-step-3  CORRUPT", "[red] was added to it"]] == entries(
        capsys.readouterr().out
    )


def test_says_which_one_has_another_format(tmp_path, capsys):
    """One that a later version wrote is not corrupt, but unreadable; the exit status is 1."""
    train(tmp_path, n_epochs=1)
    path = Store(tmp_path).checkpoints()[0]
    about = verify(path)
    files = about.pop("files")
    del about["sha256"]
    (path / "manifest.json").write_bytes(encode({**about, "format": 99}, files))
    assert 1 == main([str(tmp_path)])
    ((title, *why),) = entries(capsys.readouterr().out)
    assert "000001-epoch-1-step-3  UNREADABLE" == title
    expected = "has format 99, this ttl-checkpoint reads 1. Install the version that wrote it"
    assert " ".join(why).endswith(expected)


def test_shows_what_failures_left(tmp_path, capsys):
    """Directories crash-... are listed in the order of their numbers."""
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, Fail(), n_epochs=3)
    assert 0 == main([str(tmp_path)])
    titles = [entry[0] for entry in entries(capsys.readouterr().out)]
    assert titles[-1].startswith("crash-000003-epoch-2-step-8  epoch 2  step 8  exception  ")


def test_shows_what_was_set_aside(tmp_path, capsys):
    """Directories corrupt-... are listed too, as corrupt ones."""
    train(tmp_path, n_epochs=2)
    damage(Store(tmp_path).checkpoints()[0])
    train(tmp_path, n_epochs=2)
    assert 1 == main([str(tmp_path)])
    titles = [entry[0].split("  ")[0::4] for entry in entries(capsys.readouterr().out)]
    assert ["000001-epoch-1-step-3", "corrupt-000002-epoch-2-step-6", "000003-epoch-2-step-6"] == [
        title[0] for title in titles
    ]


@pytest.mark.parametrize("name", [".", "missing"])
def test_says_so_if_there_is_none(tmp_path, capsys, name):
    """For an empty directory, or a missing one, the exit status is 2."""
    assert 2 == main([str(tmp_path / name)])
    output = capsys.readouterr()
    assert ("", f"ttl: no checkpoint is in {tmp_path / name}\n") == (output.out, output.err)


def test_is_a_program(tmp_path):
    """`python -m ttl_checkpoint` prints the listing, and exits with the status of the worst."""
    train(tmp_path)
    damage(Store(tmp_path).checkpoints()[1])
    program = [sys.executable, "-W", "error", "-m", "ttl_checkpoint", str(tmp_path)]
    done = subprocess.run(
        program, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, check=False
    )
    assert (1, "") == (done.returncode, done.stderr)
    bad, good = entries(done.stdout)
    assert "000001-epoch-1-step-3  CORRUPT" == bad[0]
    assert good[0].endswith("verified")


def test_is_a_command_of_ttl(tmp_path, capsys):
    """`ttl checkpoints` is the same command."""
    train(tmp_path)
    assert [main([str(tmp_path)])] == [ttl(["checkpoints", str(tmp_path)])]
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_changes_nothing(tmp_path):
    """A listing only reads: a corrupt checkpoint keeps its name."""
    train(tmp_path)
    damage(Store(tmp_path).checkpoints()[0])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    main([str(tmp_path)])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
