"""The wheels of all distributions, as they would be released, and the example of digits."""

import re
import signal
import subprocess
import sys
import zipfile

import pytest
from environments import ROOT, Environment, build_wheels, link_requirements, requirements_of
from examples import DIGITS, assert_trained_well, run_example

pytestmark = pytest.mark.check

MORE_PACKAGES = {"ttl_trials": {"ttl_compare"}}
"""Packages besides the one that is named after the distribution."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Build a wheel of every distribution."""
    projects = [ROOT, *(path.parent for path in ROOT.glob("ttl_plugins/*/pyproject.toml"))]
    return build_wheels(tmp_path_factory.mktemp("wheels"), *projects)


def test_every_wheel_is_typed(wheels):
    """Every wheel holds its packages with py.typed and its licence, and no tests."""
    for wheel in wheels:
        distribution = wheel.name.split("-")[0]
        packages = {distribution} | MORE_PACKAGES.get(distribution, set())
        names = zipfile.ZipFile(wheel).namelist()
        assert {f"{package}/py.typed" for package in packages} <= {*names}
        assert [] != [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert packages == {name.split("/")[0] for name in names if "dist-info" not in name}


def test_every_wheel_of_a_plugin_holds_all_files_of_its_package(wheels):
    """Those that are no Python too, such as the templates of pages."""
    held = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    sources = [path for path in ROOT.glob("ttl_plugins/*/src/**/*") if path.is_file()]
    files = {path.relative_to(ROOT).as_posix().split("/src/")[1] for path in sources}
    assert set() == {name for name in files if "__pycache__" not in name} - held


@pytest.fixture(scope="module")
def printed(wheels, tmp_path_factory):
    """Run the example outside the repository, from wheels with only what they require."""
    folder = tmp_path_factory.mktemp("installed")
    declared = {text for wheel in wheels for text in requirements_of(wheel)}
    third_party = folder / "third-party"
    third_party.mkdir()
    link_requirements(
        third_party, ["scikit-learn", *(text for text in declared if not text.startswith("ttl-"))]
    )
    environment = Environment(folder / "environment", third_party)
    environment.install_checked(*wheels, "scikit-learn")
    return environment.program(DIGITS.read_text()).success


def test_the_example_learns_to_read_digits(printed):
    """The example reaches more than 0.97 on the held-out third and says what ran."""
    assert_trained_well(printed)


def test_the_example_resumes_after_ctrl_c(printed, tmp_path):
    """Interrupted in its second epoch, the example resumes, to the result of the complete run."""
    with subprocess.Popen(
        [sys.executable, "-u", DIGITS],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        first = next(line for line in running.stdout if line.startswith("valid epoch 1/10"))
        running.send_signal(signal.SIGINT)
        rest, complaint = running.communicate()
    assert running.returncode in (-signal.SIGINT, 130)
    assert "Start the same script again to resume" in complaint.splitlines()[-1]
    assert "epoch 10/10" not in first + rest
    resumed = run_example(DIGITS, cwd=tmp_path)
    assert "epoch 1/10" not in resumed
    assert printed.splitlines()[-1] == resumed.splitlines()[-1]
    assert without_seconds(printed, "10/10") == without_seconds(resumed, "10/10")


def without_seconds(printed, epoch):
    """Return the lines of an epoch, without how long it took."""
    lines = [line for line in printed.splitlines() if f"epoch {epoch}" in line]
    return [re.sub(r"[\d.]+ s ", "", line) for line in lines]
