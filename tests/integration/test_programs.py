"""Whole programs, run as a user runs them."""

import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "digits.py"


def output_of(*command, cwd=None):
    """Run a command with warnings as errors where it is Python, and return what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_trained_well(printed):
    """Check what the example printed: who ran, and how well it did."""
    assert re.search(r"supervised +ttl-supervised \d", printed)
    assert re.search(r"metrics +ttl-metrics \d", printed)
    assert re.search(r"progress +ttl-progress \d", printed)
    assert re.search(r"count-mistakes +this script", printed)
    assert float(re.search(r"test accuracy ([\d.]+)", printed)[1]) > 0.97


def test_the_program_of_the_seeds_document_prints_what_the_document_says():
    """The seed's own program runs with nothing changed but its import."""
    program = Path(__file__).with_name("seed_program.py")
    assert output_of(sys.executable, program) == "Done.\nSaved.\n"


def test_the_example_learns_to_read_digits(tmp_path):
    """The example reaches more than 0.97 on the held-out third and says what ran."""
    assert_trained_well(output_of(sys.executable, EXAMPLE, cwd=tmp_path))


def test_the_example_goes_on_after_ctrl_c(tmp_path):
    """Interrupted in its second epoch, the example goes on, to what it comes to undisturbed."""
    left_alone, interrupted = tmp_path / "left-alone", tmp_path / "interrupted"
    for folder in (left_alone, interrupted):
        folder.mkdir()
    expected = output_of(sys.executable, EXAMPLE, cwd=left_alone)
    command = [sys.executable, "-u", EXAMPLE]
    with subprocess.Popen(
        command, cwd=interrupted, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        first = next(line for line in running.stdout if line.startswith("valid epoch 1/10"))
        running.send_signal(signal.SIGINT)
        rest, complaint = running.communicate()
    assert running.returncode in (-signal.SIGINT, 130)
    assert "KeyboardInterrupt" in complaint
    assert "epoch 10/10" not in first + rest
    resumed = output_of(sys.executable, EXAMPLE, cwd=interrupted)
    assert "epoch 1/10" not in resumed
    assert expected.splitlines()[-1] == resumed.splitlines()[-1]
    assert without_seconds(expected, "10/10") == without_seconds(resumed, "10/10")


def without_seconds(printed, epoch):
    """Return the lines of an epoch, without how long it took."""
    lines = [line for line in printed.splitlines() if f"epoch {epoch}" in line]
    return [re.sub(r"[\d.]+ s ", "", line) for line in lines]


def test_the_text_example_learns_more_than_how_frequent_characters_are():
    """The transformer gets far below the loss of a unigram model, with everything by name."""
    printed = output_of(sys.executable, ROOT / "docs" / "examples" / "text.py")
    losses = dict(re.findall(r"^  (network|unigram) +([\d.]+) nats", printed, re.MULTILINE))
    assert float(losses["network"]) < 0.6 * float(losses["unigram"])


def test_the_gpu_script_says_what_it_did():
    """Without a GPU the script that measures on one says that it was not run."""
    printed = output_of(sys.executable, ROOT / "docs" / "examples" / "measure_gpu.py")
    assert torch.cuda.is_available() or printed == "Not run: there is no GPU.\n"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """Build a wheel of every distribution, as for a release."""
    folder = tmp_path_factory.mktemp("wheels")
    projects = [ROOT, *(path.parent for path in ROOT.glob("ttl_plugins/*/pyproject.toml"))]
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder]
    output_of(*pip, *projects)
    return sorted(folder.glob("*.whl"))


def test_every_wheel_says_that_it_is_typed(wheels):
    """Every wheel holds its package with py.typed, and no tests."""
    for wheel in wheels:
        package = wheel.name.split("-")[0]
        names = zipfile.ZipFile(wheel).namelist()
        assert f"{package}/py.typed" in names
        assert {package} == {name.split("/")[0] for name in names if "dist-info" not in name}


def test_the_example_runs_from_wheels_in_an_empty_environment(wheels, tmp_path):
    """Wheels installed into a new environment, outside the repository, run the example."""
    output_of(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    output_of(*pip, *wheels, "scikit-learn")
    program = tmp_path / "program.py"
    program.write_text(EXAMPLE.read_text())
    assert_trained_well(output_of(python, "-I", program, cwd=tmp_path))
