"""What all distributions of this repository have in common, and what `ttl new` writes too."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ttl_core.discovery.first_party import DISTRIBUTIONS

ROOT = Path(__file__).parents[2]
CORE = ROOT / "pyproject.toml"
PLUGINS = sorted(ROOT.glob("ttl_plugins/*/pyproject.toml"))
TEMPLATES = sorted(ROOT.glob("ttl_core/cli/template/*/pyproject.toml"))


def label(path):
    """Return the name of the folder of a pyproject.toml, to name a test."""
    return path.parent.name


def project(path):
    """Return the table `project` of a pyproject.toml."""
    return tomllib.loads(path.read_text())["project"]


def requirements(path):
    """Return the requirements of a distribution, those of its extras too."""
    extras = project(path).get("optional-dependencies", {})
    lines = [*project(path)["dependencies"], *(line for extra in extras.values() for line in extra)]
    return [Requirement(line) for line in lines]


def bound(path, name):
    """Return the versions of a distribution that another one requires, or None."""
    found = (r for r in requirements(path) if r.name == name and r.specifier)
    return next((str(requirement.specifier) for requirement in found), None)


@pytest.mark.parametrize("path", [*PLUGINS, *TEMPLATES], ids=label)
def test_the_bound_on_the_core_is_its_minor_version(path):
    """A plugin accepts the core's minor version, in which its interface stays, and no other."""
    major, minor, _ = map(int, project(CORE)["version"].split("."))
    assert f"<{major}.{minor + 1},>={major}.{minor}" == bound(path, "ttl-core")


@pytest.mark.parametrize("path", PLUGINS, ids=label)
def test_the_version_is_that_of_the_core(path):
    """All distributions are released together."""
    assert project(CORE)["version"] == project(path)["version"]


@pytest.mark.parametrize("path", [*PLUGINS, *TEMPLATES], ids=label)
def test_the_bound_on_torch_is_that_of_the_core(path):
    """The lowest version of torch is one that `make release-check` has tried."""
    assert bound(path, "torch") in (bound(CORE, "torch"), None)


@pytest.mark.parametrize("path", [CORE, *PLUGINS], ids=label)
def test_every_requirement_has_a_lowest_version(path):
    """`make release-check` tries it."""
    specifiers = {r.name: {each.operator for each in r.specifier} for r in requirements(path)}
    assert [] == [name for name, operators in specifiers.items() if ">=" not in operators]


@pytest.mark.parametrize("path", PLUGINS, ids=label)
def test_the_licence_is_that_of_the_core(path):
    """Each distribution holds its text, as it asks for."""
    assert (ROOT / "LICENSE").read_text() == path.with_name("LICENSE").read_text()


def test_templates_differ_in_what_they_offer_alone():
    """The configuration of tools that `ttl new` writes is the same for every kind."""
    tools = [tomllib.loads(path.read_text())["tool"] for path in TEMPLATES]
    for tool in tools:
        assert tools[0] == tool


def test_fragments_of_the_changelog_are_named_by_their_type():
    """A misnamed one would not get into the changelog."""
    fragments = {path.name for path in ROOT.glob("changes/*")} - {"README.md"}
    name = re.compile(r"[+\w-]+\.(feature|bugfix|doc|removal)\.md")
    assert set() == {each for each in fragments if not name.fullmatch(each)}


def test_the_core_knows_which_distribution_offers_which_component():
    """An error names the one to install."""
    offered = {
        component: project(path)["name"]
        for path in PLUGINS
        for component in project(path)["entry-points"]["ttl.components"]
    }
    assert offered == DISTRIBUTIONS
