"""A release: sdists and wheels of a clean clone, checked, and tested as they are installed.

Run alone by `make release-check`. It installs torch twice, from the index.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
from environments import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

pytestmark = pytest.mark.release

# what the tests need beside ttl-core[testing]
TOOLS = ["pytest-xdist", "sybil", "hypothesis", "scikit-learn", "torchdata", "torchinfo"]
TESTS = [  # of the core, of every component, and of those that other libraries are behind
    "tests/unit",
    "ttl_plugins/*/tests/test_conformance.py",
    "ttl_plugins/ttl-checkpoint/tests/test_best.py",
    "ttl_plugins/ttl-loggers/tests/test_files.py",
    "ttl_plugins/ttl-loggers/tests/test_history.py",
    "ttl_plugins/ttl-metrics/tests",
    "ttl_plugins/ttl-mlflow/tests/test_mlflow.py",
    "ttl_plugins/ttl-progress/tests/test_summary.py",
    "ttl_plugins/ttl-report/tests/test_report.py",
    "ttl_plugins/ttl-tensorboard/tests",
]


def run(*command, cwd, **variables):
    """Run a command, and fail with what it printed if it fails."""
    print("$", *(str(part) for part in command), flush=True)
    subprocess.run(command, cwd=cwd, env=os.environ | variables, check=True)


def requirements(clone):
    """Return the requirements of all distributions and of their extras."""
    lines = set()
    for path in [clone / "pyproject.toml", *clone.glob("ttl_plugins/*/pyproject.toml")]:
        read = tomllib.loads(path.read_text())
        extras = read["project"].get("optional-dependencies", {}).values()
        lines.update(read["project"]["dependencies"], *extras)
    return [Requirement(line) for line in lines]


def lowest_versions(clone):
    """Return constraints to the lowest version of each requirement that all distributions accept.

    Those of ttl are left out: they are what is tested.
    """
    lowest = {}
    for requirement in requirements(clone):
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        if not requirement.name.startswith("ttl-"):
            known = lowest.get(requirement.name, "0")
            lowest[requirement.name] = max(known, *bounds, key=Version)
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """Clone what is committed."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    run("git", "clone", "--quiet", ROOT, folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def make_environment(clone):
    """Return a function that makes an empty virtual environment, and returns its Python."""

    def make(name):
        folder = clone.parent / name
        run(sys.executable, "-m", "venv", folder, cwd=clone)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="module")
def constraints(clone):
    """Write the lowest versions as a file for pip."""
    path = clone.parent / "lowest.txt"
    path.write_text("\n".join(lowest_versions(clone)))
    return path


@pytest.fixture(scope="module")
def dist(clone, make_environment):
    """Build all distributions with the lowest version of the build tool; remove the sources."""
    (tool,) = tomllib.loads((clone / "pyproject.toml").read_text())["build-system"]["requires"]
    python = make_environment("build")
    install = [python, "-m", "pip", "install", "--quiet", tool.replace(">=", "=="), "build"]
    run(*install, "twine", cwd=clone)
    run("make", "dist", "BUILD=", f"BUILD_BIN={python.parent}", cwd=clone)
    for sources in [clone / "ttl_core", *clone.glob("ttl_plugins/*/src")]:
        shutil.rmtree(sources)  # so that tests import what is installed
    return clone / "dist"


@pytest.fixture(scope="module")
def names(clone):
    """Return the names of all distributions."""
    return ["ttl-core", *sorted(path.name for path in clone.glob("ttl_plugins/ttl-*"))]


def test_every_distribution_passes_twine(clone, dist):
    """The index accepts the metadata of each, and shows its README."""
    paths = sorted(dist.iterdir())
    run(clone.parent / "build" / "bin" / "twine", "check", "--strict", *paths, cwd=clone)


def test_every_wheel_holds_its_licence_and_its_types(clone, dist, names):
    """And its README, as the description in its metadata."""
    licence = (clone / "LICENSE").read_bytes()
    assert len(names) == len(list(dist.glob("*.whl")))
    for path in dist.glob("*.whl"):
        stem = "-".join(path.name.split("-")[:2])
        wheel = zipfile.ZipFile(path)
        assert licence == wheel.read(f"{stem}.dist-info/licenses/LICENSE")
        assert f"{stem.split('-')[0]}/py.typed" in wheel.namelist()
        metadata = wheel.read(f"{stem}.dist-info/METADATA").decode()
        assert "\nLicense-Expression: MIT\n" in metadata
        assert "\n\n# ttl" in metadata


def test_every_sdist_holds_what_a_build_needs(dist, names):
    """Its README, licence and pyproject.toml are in it; the wheels were built from the sdists."""
    assert len(names) == len(list(dist.glob("*.tar.gz")))
    for path in dist.glob("*.tar.gz"):
        stem = path.name.removesuffix(".tar.gz")
        with tarfile.open(path) as sdist:
            held = {name.removeprefix(f"{stem}/") for name in sdist.getnames()}
        assert {"PKG-INFO", "README.md", "LICENSE", "pyproject.toml"} <= held


@pytest.mark.parametrize("versions", ["lowest", "newest"])
def test_the_suite_passes(clone, dist, names, make_environment, constraints, versions):
    """Installed by name in an empty environment, with the lowest or newest of every requirement."""
    python = make_environment(versions)
    extras = {"ttl-core": "ttl-core[testing]", "ttl-loggers": "ttl-loggers[pandas]"}
    wanted = [extras.get(name, name) for name in names]
    chosen = ["-c", constraints] if versions == "lowest" else []
    found = f"{dist} {os.environ.get('PIP_FIND_LINKS', '')}"
    install = [python, "-m", "pip", "install", "--quiet", "--no-compile", *chosen]
    run(*install, *TOOLS, *wanted, cwd=clone, PIP_FIND_LINKS=found)
    run(python, "-m", "pip", "freeze", cwd=clone)
    suite = [path for pattern in TESTS for path in sorted(clone.glob(pattern))]
    # a server needs more than MLflow's client; a process that crashes is not started again, so
    # that the run ends
    options = ["-q", "-n", "2", "--max-worker-restart=0", "-k", "not a_server"]
    run(python, "-m", "pytest", *options, *suite, cwd=clone)
