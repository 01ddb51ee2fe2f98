"""The wheels of all distributions, as they would be released."""

import zipfile

import pytest
from environments import ROOT, Environment, build_wheels, link_requirements, requirements_of
from examples import DIGITS, assert_trained_well


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Build a wheel of every distribution."""
    projects = [ROOT, *(path.parent for path in ROOT.glob("ttl_plugins/*/pyproject.toml"))]
    return build_wheels(tmp_path_factory.mktemp("wheels"), *projects)


def test_every_wheel_is_typed(wheels):
    """Every wheel holds its package with py.typed and its licence, and no tests."""
    for wheel in wheels:
        package = wheel.name.split("-")[0]
        names = zipfile.ZipFile(wheel).namelist()
        assert f"{package}/py.typed" in names
        assert [] != [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert {package} == {name.split("/")[0] for name in names if "dist-info" not in name}


def test_every_wheel_of_a_plugin_holds_all_files_of_its_package(wheels):
    """Those that are no Python too, such as the templates of pages."""
    held = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    sources = [path for path in ROOT.glob("ttl_plugins/*/src/**/*") if path.is_file()]
    files = {path.relative_to(ROOT).as_posix().split("/src/")[1] for path in sources}
    assert set() == {name for name in files if "__pycache__" not in name} - held


def test_the_example_runs_from_wheels_with_only_what_they_require(wheels, tmp_path):
    """Outside the repository, the wheels and their declared requirements run the example."""
    declared = {text for wheel in wheels for text in requirements_of(wheel)}
    third_party = tmp_path / "third-party"
    third_party.mkdir()
    link_requirements(
        third_party, ["scikit-learn", *(text for text in declared if not text.startswith("ttl-"))]
    )
    environment = Environment(tmp_path / "environment", third_party)
    environment.install_checked(*wheels, "scikit-learn")
    assert_trained_well(environment.program(DIGITS.read_text()).success)
