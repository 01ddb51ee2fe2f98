"""Editable checkouts whose entry points have changed since they were installed."""

import re
import shlex
import shutil
from textwrap import dedent

import pytest
from environments import replace_text


def make_checkout(folder, build, name="acme-local"):
    """Write the project of a distribution with one component."""
    module = name.replace("-", "_")
    (folder / "src" / module).mkdir(parents=True)
    (folder / "src" / module / "__init__.py").write_text(
        "from ttl_core import LoopComponent\nclass Local(LoopComponent): ...\n"
    )
    (folder / "pyproject.toml").write_text(
        dedent(f"""
        [build-system]
        requires = ["{build.partition(".")[0]}"]
        build-backend = "{build}"

        [project]
        name = "{name}"
        version = "1.0"

        [project.entry-points."ttl.components"]
        local = "{module}:Local"
        """)
    )
    return folder


def declare_newcomer(checkout):
    """Add an entry point to a checkout."""
    replace_text(checkout / "pyproject.toml", "local =", 'newcomer = "acme_local:Local"\nlocal =')


def fix_in(text):
    """Return the command that a message says to run, which is on one line."""
    return "".join(re.findall(r"pip install -e.*", text))


@pytest.fixture(scope="module")
def stale(tmp_path_factory, make_environment):
    """Return an environment and an editable checkout in it that has gained an entry point."""
    folder = tmp_path_factory.mktemp(
        "a-checkout-in-a-folder-with-a-long-name-as-happens-in-real-life"
    )
    checkout = make_checkout(folder, "hatchling.build")
    environment = make_environment()
    environment.install("--editable", checkout)
    declare_newcomer(checkout)
    return environment, checkout


def test_an_entry_point_that_is_only_in_the_sources_is_explained(stale):
    """A name that only the sources declare is an error with the checkout and the fix."""
    environment, checkout = stale
    result = environment.program("from ttl_core import arrange; arrange(['newcomer'])")
    assert result.status == 1
    assert "no component 'newcomer' is installed" in result.err
    assert f"The editable checkout {checkout} of acme-local declares it" in result.err
    assert f"pip install -e {checkout}" == fix_in(result.err)


def test_a_stale_checkout_keeps_its_installed_components(stale):
    """The entry points that were installed continue to work."""
    environment, _ = stale
    assert environment.program("from ttl_core import arrange; print(arrange(['local']))").success


def test_doctor_finds_a_stale_checkout(stale):
    """`ttl doctor` names the checkout and what changed, with a fix on one line to paste."""
    environment, checkout = stale
    result = environment.ttl("doctor")
    assert result.status == 1
    assert f"{checkout} of acme-local has changed" in result.text
    assert "newcomer" in result.out
    assert f"pip install -e {checkout}" == fix_in(result.out)


@pytest.fixture(scope="module")
def misspelled(tmp_path_factory, make_environment):
    """Return an environment and an editable checkout in it whose entry point names nothing."""
    checkout = make_checkout(tmp_path_factory.mktemp("misspelled"), "hatchling.build")
    replace_text(checkout / "pyproject.toml", "acme_local:Local", "acme_local:Locl")
    environment = make_environment()
    environment.install("--editable", checkout)
    return environment, checkout


def test_a_wrong_entry_point_of_a_checkout_is_corrected_there(misspelled):
    """Installing it from an index would not help: the error suggests the class, and the command."""
    environment, checkout = misspelled
    result = environment.program("from ttl_core import arrange; arrange(['local'])")
    assert "its entry point 'acme_local:Locl' names nothing" in result.err
    assert "Did you mean 'Local'? It is an editable checkout: correct it there" in result.err
    assert f"pip install -e {checkout}" == fix_in(result.err)


def test_doctor_says_once_what_is_wrong_with_an_entry_point(misspelled):
    """The component, the reason and the command are there once each, before and after a change."""
    environment, checkout = misspelled
    result = environment.ttl("doctor")
    assert [1, 1] == [result.out.count(each) for each in ("'local' (acme", "pip install")]
    replace_text(checkout / "pyproject.toml", "acme_local:Locl", "acme_local:Local")
    result = environment.ttl("doctor")
    assert "has changed its components since it was installed: local" in result.text
    assert result.text.endswith("1 problem found, with 1 component installed")
    assert f"pip install -e {checkout}" == fix_in(result.out)


@pytest.mark.parametrize("change", ["renamed", "removed"])
def test_doctor_finds_what_a_checkout_no_longer_declares(tmp_path, make_environment, change):
    """A name that is installed but no longer declared is stale too."""
    checkout = make_checkout(tmp_path / "checkout", "hatchling.build")
    environment = make_environment()
    environment.install("--editable", checkout)
    replace_text(
        checkout / "pyproject.toml",
        'local = "acme_local:Local"\n',
        {"renamed": 'near = "acme_local:Local"\n', "removed": ""}[change],
    )
    result = environment.ttl("doctor")
    assert result.status == 1
    assert "acme-local has changed its components since it was installed" in result.text


def test_the_fix_of_a_stale_checkout_can_be_pasted(tmp_path, make_environment):
    """The command in the error fixes a checkout in a folder with a space in its name."""
    checkout = make_checkout(tmp_path / "my checkout", "hatchling.build")
    environment = make_environment()
    environment.install("--editable", checkout)
    declare_newcomer(checkout)
    use_newcomer = "from ttl_core import arrange; print(arrange(['newcomer']))"
    _, _, *what = shlex.split(fix_in(environment.program(use_newcomer).err))
    assert ["-e", str(checkout)] == what
    environment.install(*what)
    assert environment.program(use_newcomer).success == "['newcomer']\n"


@pytest.fixture(params=["dynamic entry points", "egg-info"])
def setuptools_checkout(request, tmp_path, make_environment):
    """Return an environment with an editable checkout that setuptools installed."""
    checkout = make_checkout(tmp_path / "checkout", "setuptools.build_meta")
    if request.param == "dynamic entry points":
        path = checkout / "pyproject.toml"
        static = path.read_text().partition("[project.entry-points")[0]
        path.write_text(static + 'dynamic = ["entry-points"]\n')
        (checkout / "setup.cfg").write_text(
            "[options.entry_points]\nttl.components =\n    local = acme_local:Local\n"
        )
    environment = make_environment()
    environment.install("--editable", checkout)
    if request.param == "egg-info":  # which older versions leave beside the package
        info = environment.site_packages / "acme_local-1.0.dist-info"
        leftover = checkout / "src" / "acme_local.egg-info"
        leftover.mkdir()
        shutil.copy(info / "METADATA", leftover / "PKG-INFO")
        shutil.copy(info / "entry_points.txt", leftover)
    return environment


def test_doctor_accepts_a_checkout_of_setuptools(setuptools_checkout):
    """Neither entry points outside of pyproject.toml nor its own egg-info are reported."""
    result = setuptools_checkout.ttl("doctor")
    assert "no problems found, with 1 component installed\n" == result.out
    assert result.status == 0
