"""What `ttl new` writes: checked unedited, built, installed, enabled by name, uninstalled."""

import itertools
import re
import subprocess
import sys

import pytest
from environments import PIP, ROOT, build_wheels

pytestmark = pytest.mark.check

# names of every length that is accepted give code that is formatted
COMPONENTS = {
    "component": "ab",
    "hookspecs": "gradient-noise-and-averages",
    "logger": "grad-noise",
}
NAMES = {**COMPONENTS, "bundle": "acme-baseline"}
MYPY_CACHE = ROOT / ".mypy_cache" / "new"  # torch alone takes half a minute without one


def tool(name, *arguments, cwd=ROOT):
    """Run a tool that is installed here, and return its status and the last line it printed."""
    command = [sys.executable, "-m", name, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    print(done.stdout + done.stderr)  # which pytest shows if the test fails
    return done.returncode, (done.stdout.splitlines() or [""])[-1]


def readme_example(folder):
    """Return the example in the README of a package."""
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


@pytest.fixture(scope="module")
def environment(make_environment):
    """Return an environment with the core, and in its folder a package of each kind."""
    environment = make_environment()
    for kind, name in NAMES.items():
        options = [] if kind == "component" else [f"--{kind}"]
        assert environment.ttl("new", name, *options).success.startswith(f"ttl-{name} holds")
    return environment


@pytest.fixture(scope="module")
def folders(environment):
    """Return the folders of the packages, by kind."""
    return {kind: environment.folder / f"ttl-{name}" for kind, name in NAMES.items()}


@pytest.fixture(scope="module")
def built(folders):
    """Build the wheel and the sdist of each, and return them."""
    for folder in folders.values():
        status, last = tool("build", "--no-isolation", cwd=folder)
        assert (0, "Successfully built") == (status, last[:18])
    return {kind: sorted(folder.glob("dist/*")) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def installed(environment, built):
    """Return the environment with the wheels of the components installed in it."""
    environment.install(*(built[kind][0] for kind in COMPONENTS))
    return environment


# -- as it was written ----------------------------------------------------------------------


def test_files_that_are_no_python_are_written_too(folders):
    """The wheel of the core holds them, and those whose names begin with a dot."""
    for folder in folders.values():
        written = {path.name for path in folder.rglob("*")}
        assert {".gitignore", "ci.yml", "py.typed", "LICENSE"} <= written


def test_no_placeholder_is_left(folders):
    """Neither in a file nor in its name."""
    for folder in folders.values():
        for path in folder.rglob("*"):
            text = path.read_text() if path.is_file() else ""
            assert not re.search("my.?component", f"{path.name} {text}", re.IGNORECASE)


def test_it_passes_ruff(folders):
    """Lint and format, as it is configured there."""
    assert (0, "All checks passed!") == tool("ruff", "check", *folders.values())
    status, last = tool("ruff", "format", "--check", *folders.values())
    assert (0, "already formatted") == (status, last[-17:])


@pytest.mark.parametrize("kind", NAMES)
def test_it_passes_mypy(folders, kind):
    """Strictly, tests too, as it is configured there."""
    status, last = tool("mypy", "--cache-dir", MYPY_CACHE, cwd=folders[kind])
    assert (0, "Success") == (status, last[:7])


def test_it_passes_twine(built):
    """What an index would say of its sdist and wheel."""
    status, last = tool("twine", "check", "--strict", *itertools.chain(*built.values()))
    assert (0, True) == (status, "PASSED" in last)


# -- installed ------------------------------------------------------------------------------


def test_it_is_enabled_by_name(installed, folders):
    """The example of each README runs, in which the component is enabled by its name."""
    examples = [readme_example(folders[kind]) for kind in COMPONENTS]
    for name, example in zip(COMPONENTS.values(), examples, strict=True):
        assert f'use("{name}", ' in example
    assert installed.torch_program("\n".join(examples)).success


def test_its_own_tests_pass(installed, folders):
    """Behaviour, conformance, and the examples of docstrings; warnings are errors."""
    places = [folders[kind] / part for kind in COMPONENTS for part in ("tests", "src")]
    options = ["-q", "-p", "no:cacheprovider", "-c", folders["component"] / "pyproject.toml"]
    assert " passed" in installed.run("-m", "pytest", *options, *places).success


def test_it_can_be_uninstalled(installed):
    """Nothing of it is left then."""
    names = [f"ttl-{name}" for name in COMPONENTS.values()]
    pip = [*PIP, "--python", installed.python, "uninstall", "--quiet", "--yes", *names]
    subprocess.run(pip, check=True, env=installed.variables())
    assert "no components are installed" in installed.ttl("plugins").success
    assert [] == [path for path in installed.site_packages.glob("ttl_*") if "core" not in path.name]


# -- a bundle -------------------------------------------------------------------------------


def test_a_bundle_is_enabled_by_name(make_environment, built, folders, tmp_path):
    """Its own tests pass, and the example of its README, with the components that it names."""
    plugins = [ROOT / "ttl_plugins" / f"ttl-{name}" for name in ("metrics", "optim", "supervised")]
    environment = make_environment(*build_wheels(tmp_path, *plugins), built["bundle"][0])
    folder = folders["bundle"]
    options = ["-q", "-p", "no:cacheprovider", "-c", folder / "pyproject.toml"]
    places = [folder / "tests", folder / "src"]
    assert " passed" in environment.run("-m", "pytest", *options, *places).success
    assert environment.torch_program(readme_example(folder)).success
