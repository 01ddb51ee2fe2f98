"""`ttl selftest` finds whether a script resumes to the same bits, and what does not."""

import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from ttl_checkpoint import selftest
from ttl_checkpoint.__main__ import main
from ttl_checkpoint.captured import captured_by_functions

from ttl_core import TrainTestLoop
from ttl_core.cli import main as ttl

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks the runs")

SCRIPT = """
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from ttl_core import LoopComponent, TrainTestLoop, use
from ttl_core.testing import ComponentConformance, Step

class Scale(LoopComponent):
    def __init__(self):
        self.n = 0

    def on_batch_begin(self, loop):
        self.n += 1
        inputs, targets = loop.batch
        loop.batch = inputs * (1 + self.n) + torch.rand_like(inputs), targets

class SavedScale(Scale):
    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        self.n = state["n"]

def noisy(batches):
    generator = torch.Generator()
    calls = 0

    class Noisy(Sequence):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            nonlocal calls
            inputs, targets = batches[index]
            if "closure" in sys.argv:
                return inputs + torch.rand(6, 4, generator=generator), targets
            calls += 1
            return inputs + calls, targets

    return Noisy()

if "unseeded" not in sys.argv:
    torch.manual_seed(1)
scale = Scale() if "broken" in sys.argv else SavedScale()
saving = [use("checkpoint", directory=Path("runs") / "a", every=2)]
if "absolute" in sys.argv:
    saving = [use("checkpoint", directory="/elsewhere/runs")]
if "plain" in sys.argv:
    saving = []
if "reading" in sys.argv:
    assert Path("data.txt").read_text() == "1"
data = ComponentConformance.make_data(4)
if "closure" in sys.argv or "counter" in sys.argv:
    data = noisy(data)
loop = TrainTestLoop(
    ComponentConformance.make_model(), [scale, Step(), use("ema", decay=0.9), *saving], data
)
loop.train(2)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Return the path of a script, in a folder that is not the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scripts" / "train.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    return path


def test_a_script_that_resumes_passes(script, capsys):
    """Killed at points that a seed decides, it comes to the same bits, and leaves nothing.

    What it reads in the current folder is linked there.
    """
    (script.parents[1] / "data.txt").write_text("1")
    given = [str(script), "reading", "--link", "data.txt", "--kills", "2", "--seed", "1"]
    assert main(["selftest", *given]) == 0
    out = capsys.readouterr().out
    assert out.count("killed after step") == 2
    assert "resumed to the same bits: " in out
    assert {path.name for path in script.parents[1].iterdir()} == {"data.txt", "scripts"}


def test_what_is_not_restored_is_named(script, capsys):
    """The variable, the component that owns it, and what differed then."""
    assert ttl(["selftest", str(script), "broken", "--kills", "1", "--seed", "3"]) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = next(i for i, line in enumerate(lines) if line.startswith("not restored"))
    assert lines[at - 1].startswith("DIFFERS: the state of epoch ")
    step = int(lines[at].rpartition(" ")[2].strip(":"))
    assert lines[at + 1] == f"component 'scale': attribute n: {step} without kills, 0 resumed"
    assert any(line.startswith("the model: ") for line in lines[at:]) or "and" in lines[-2]


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("closure", "train_data: 'generator' that Noisy.__getitem__ refers to: other values"),
        ("counter", "train_data: 'calls' that Noisy.__getitem__ refers to: "),
    ],
)
def test_what_a_function_refers_to_is_named(how, named, script, capsys):
    """A generator or a number in a closure, before all else, with what to do."""
    assert main(["selftest", str(script), how, "--kills", "1", "--seed", "3"]) == 1
    out = capsys.readouterr().out
    restored = out.partition("not restored")[2].partition("different then")[0].splitlines()
    assert [line.strip().startswith(named) for line in restored[1:-1]] == [True]
    assert "different then:\n    the model: " in out
    assert "Variables of functions are in no state" in out


def test_what_a_comprehension_or_a_lambda_refers_to_is_found():
    """A function has them as code of their own."""
    scope = {"rand": torch.rand, "a": torch.Generator(), "b": torch.Generator()}
    source = (
        "[rand(1, generator=a) for _ in samples], *map(lambda _: rand(1, generator=b), samples)"
    )
    data = DataLoader([0, 1], collate_fn=eval(f"lambda samples: ({source})", scope))
    found = captured_by_functions(TrainTestLoop(torch.nn.Identity(), [], data))
    assert {where[1:2] for _, where in found} == {"a", "b"}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("absolute", "selftest would write to /elsewhere/runs"),
        ("reading", "FileNotFoundError"),
        ("plain", "put 'checkpoint' into the list"),
        ("unseeded", "two runs that were not interrupted differ already, in the model"),
    ],
)
def test_a_script_that_cannot_be_tested_is_refused(script, how, says, capsys):
    """With what to change, and the exit status 2."""
    assert main(["selftest", str(script), how]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", [main, ttl])
@pytest.mark.parametrize(
    "given",
    [
        ["train.py", "reading", "--kills", "7", "--", "--width", "64"],
        ["--kills", "7", "train.py", "reading", "--", "--width", "64"],
        ["--kills", "7", "train.py", "--seed", "0", "reading", "--", "--width", "64"],
    ],
)
def test_the_arguments_of_the_script_follow_two_dashes(given, command, monkeypatch):
    """Options of the command may come before the script and behind it."""
    asked = []
    monkeypatch.setattr(selftest, "_run", lambda given: asked.append(vars(given)) or 0)
    assert command(["selftest", *given]) == 0
    assert asked[0]["script"] == Path("train.py")
    assert asked[0]["arguments"] == ["reading", "--width", "64"]
    assert asked[0]["kills"] == 7


@pytest.mark.parametrize("given", [["train.py", "--width", "64"], ["--", "train.py", "--width"]])
def test_an_option_of_the_script_without_two_dashes_before_it_is_refused(given, capsys):
    """With the usage of the command, which says what to write.

    Versions of argparse differ in whether two dashes in front of the script are to be seen.
    """
    with pytest.raises(SystemExit, match="2"):
        ttl(["selftest", *given])
    error = capsys.readouterr().err
    assert error.startswith("usage: ttl selftest [-h]")
    assert "[-- ARGUMENT ...]" in error


def test_a_missing_script_is_refused(capsys):
    """Before anything runs."""
    assert main(["selftest", "missing.py"]) == 2
    assert "no script missing.py" in capsys.readouterr().err
