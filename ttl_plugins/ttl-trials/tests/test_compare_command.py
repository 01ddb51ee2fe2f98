"""`ttl compare` prints and draws what single components change in the loop of a script."""

import sys

import pytest
from ttl_compare import compare
from ttl_compare.__main__ import main

from ttl_core.cli import main as ttl

SCRIPT = """
from ttl_core import use
from ttl_core.testing import Step, tiny_loop

LOOP = tiny_loop(Step(), use("ema", decay=0.5), use("grad-clip", max_norm=1e-9), n_batches=8)

def make_loop():
    return LOOP

def make_nothing():
    return None

def make_fold(fold):
    return LOOP
"""


@pytest.fixture(autouse=True)
def script(tmp_path, monkeypatch):
    """Return the path of a script in the current folder, which other tests do not import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "compared", raising=False)
    path = tmp_path / "compared.py"
    path.write_text(SCRIPT)
    yield path
    sys.modules.pop("compared", None)


@pytest.mark.parametrize("reference", ["compared.py:make_loop", "compared:make_loop"])
def test_a_table_is_printed(reference, capsys):
    """A row for each variant: ema changes no loss, clipping to nothing does."""
    assert main([reference, "ema", "grad-clip", "--steps", "12"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["variant", "last", "loss"]
    assert [row.split()[0] for row in rows] == ["as", "ema", "grad-clip"]
    assert rows[1].split()[-1] == "+0"
    assert rows[2].split()[-1] not in ("+0", "-0")


def test_components_that_end_runs_are_left_out(script, capsys):
    """With a line that says so; one that reads a metric of the validation finds it in each epoch.

    One that is toggled takes part: it ends the variant.
    """
    script.write_text("""
import torch
from ttl_core import use
from ttl_core.testing import Step, tiny_loop

class Plateau(Step):
    name = "plateau"
    seen = 0

    def on_safe_point(self, loop):
        Plateau.seen += "valid/loss" in loop.metrics

def make_loop():
    stopping = use("early-stopping", monitor="valid/loss", threshold=1e9)
    loop = tiny_loop(Plateau(), "metrics", stopping, use("ema", decay=0.5), n_batches=8)
    loop.valid_data = loop.train_data
    return loop
""")
    assert main(["compared.py:make_loop", "ema", "--steps", "12"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "left out of all variants: early-stopping"
    module = sys.modules["compared"]
    assert module.Plateau.seen > 0
    found = compare(module.make_loop(), "early-stopping", steps=12)
    assert {name: len(losses) for name, losses in found.losses.items()} == {
        "as it is": 8,
        "early-stopping": 12,
    }


def test_it_is_a_command_of_ttl(script, capsys):
    """With a plot, and components left out of all variants."""
    arguments = ["--steps", "3", "--without", "ema", "--plot", "plots/one.png"]
    assert ttl(["compare", "compared.py:make_loop", "grad-clip", *arguments]) == 0
    out = capsys.readouterr().out
    assert "grad-clip" in out
    assert "plots/one.png shows" in out
    plot = script.with_name("plots") / "one.png"
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("compared.py", "names no function"),
        ("compared.py:make_some", "has no function 'make_some'"),
        ("compared.py:make_nothing", "returned a NoneType"),
        ("compared.py:make_fold", "without arguments: missing a required argument: 'fold'"),
        ("missing.py:make_loop", "no file missing.py"),
        ("missing:make_loop", "no module 'missing'"),
    ],
)
def test_what_names_no_loop_is_refused(reference, says, capsys):
    """With a line that says what was expected, and the exit status 1."""
    assert main([reference, "ema"]) == 1
    assert says in capsys.readouterr().err


def test_a_name_that_is_not_installed_is_refused(capsys):
    """As everywhere, with what is installed."""
    assert main(["compared.py:make_loop", "emma"]) == 1
    assert "Did you mean 'ema'?" in capsys.readouterr().err
