"""Damaged installations: they break nothing else, and `ttl doctor` finds them."""

import json
import re
import shutil

import pytest
from environments import replace_text

USE_GOOD = "from ttl_core import arrange; print(arrange(['good']))"
INFO = "acme_wreck-1.0.dist-info"


def lose_metadata(packages):
    """Leave it half uninstalled."""
    (packages / INFO / "METADATA").unlink()


def empty_metadata(packages):
    """Leave it as a full disk does while it is installed."""
    (packages / INFO / "METADATA").write_text("")


def lose_version(packages):
    """Remove the field Version from its metadata."""
    replace_text(packages / INFO / "METADATA", "Version: 1.0\n", "")


def leave_over(packages):
    """Leave what an interrupted pip has renamed in order to remove it."""
    (packages / INFO).rename(packages / f"~{INFO[1:]}")
    (packages / "acme_wreck.py").rename(packages / "~cme_wreck.py")


def drop_equals(packages):
    """Put a line into entry_points.txt that is no entry point."""
    replace_text(packages / INFO / "entry_points.txt", "wreck = ", "wreck ")


def spoil_bytes(packages):
    """Put bytes into entry_points.txt that are no text."""
    path = packages / INFO / "entry_points.txt"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")


def spoil_bytes_of_another_group(packages):
    """Put bytes that are no text into the entry_points.txt of a package without components."""
    (packages / INFO / "entry_points.txt").write_bytes(b"[else]\n\xff\xfe = acme_wreck\n")


def spoil_requirement(packages):
    """Add a requirement that cannot be parsed."""
    replace_text(packages / INFO / "METADATA", "Summary:", "Requires-Dist: ??? what\nSummary:")


def lose_metadata_of_a_requirement(packages):
    """Require a distribution that is half uninstalled."""
    replace_text(packages / INFO / "METADATA", "Summary:", "Requires-Dist: acme-base>=1\nSummary:")
    (packages / "acme_base-1.0.dist-info").mkdir()
    (packages / "acme_base-1.0.dist-info" / "RECORD").touch()


def keep_older_metadata(packages):
    """Leave the metadata of an earlier version beside those of the present one."""
    older = packages / "acme_wreck-0.9.dist-info"
    shutil.copytree(packages / INFO, older)
    replace_text(older / "METADATA", "Version: 1.0", "Version: 0.9")


# What `ttl doctor` has to name for each.
DAMAGES = {
    lose_metadata: "acme_wreck",
    empty_metadata: "acme_wreck",
    lose_version: "acme_wreck",
    leave_over: "~cme_wreck",
    drop_equals: "acme_wreck",
    spoil_bytes: "acme_wreck",
    spoil_bytes_of_another_group: "acme_wreck",
    spoil_requirement: "acme-wreck",
    lose_metadata_of_a_requirement: "acme-base",
    keep_older_metadata: "acme-wreck",
}


@pytest.fixture(scope="module")
def wreck_wheel(wheel):
    """Write a package that is to be damaged."""
    return wheel("acme-wreck", {"wreck": "acme_wreck:Wreck"}, "class Wreck: ...")


@pytest.fixture(scope="module")
def environment(make_environment, good_wheel, wreck_wheel):
    """Return an environment with a good package and one to be damaged."""
    return make_environment(good_wheel, wreck_wheel)


@pytest.fixture(scope="module", params=DAMAGES, ids=lambda damage: damage.__name__)
def damaged(request, environment, tmp_path_factory):
    """Return an environment with a good package and a damaged one, and the latter's name."""
    intact = tmp_path_factory.mktemp("intact") / "site-packages"
    shutil.copytree(environment.site_packages, intact)
    request.param(environment.site_packages)
    yield environment, DAMAGES[request.param]
    shutil.rmtree(environment.site_packages)
    shutil.copytree(intact, environment.site_packages)


def test_damage_elsewhere_breaks_nothing(damaged):
    """Whatever is wrong in one package, the other components work and are listed."""
    environment, _ = damaged
    assert environment.program(USE_GOOD).success == "['good']\n"
    listing = environment.ttl("plugins")
    assert "" == listing.err
    assert re.search(r"good acme-good 1\.0 (available )?Try it out\.", listing.text)


def test_doctor_finds_the_damage(damaged):
    """`ttl doctor` names what is damaged, and ends with status 1."""
    environment, name = damaged
    result = environment.ttl("doctor")
    assert "" == result.err
    assert result.status == 1
    assert name in result.out


def test_doctor_finds_two_damages_in_one_folder(make_environment, wheel, wreck_wheel):
    """Each distribution that cannot be read is reported, not only one in each folder."""
    environment = make_environment(wreck_wheel, wheel("acme-ruin", {"ruin": "acme_ruin:Ruin"}))
    drop_equals(environment.site_packages)
    ruin = environment.site_packages / "acme_ruin-1.0.dist-info"
    replace_text(ruin / "entry_points.txt", "ruin = ", "ruin ")
    result = environment.ttl("doctor")
    assert ["acme_ruin", "acme_wreck"] == sorted(
        set(re.findall("acme_ruin|acme_wreck", result.out))
    )


def test_leftovers_of_pip_are_not_installed(make_environment, wheel, wreck_wheel):
    """What an interrupted pip has renamed offers no component and makes no name ambiguous."""
    environment = make_environment(
        wreck_wheel, wheel("acme-heir", {"wreck": "acme_heir:W"}, "class W: ...")
    )
    leave_over(environment.site_packages)
    listed = json.loads(environment.ttl("plugins", "--json").success)
    assert [("wreck", "acme-heir", "available")] == [
        (row["name"], row["distribution"], row["status"]) for row in listed
    ]


def test_an_unknown_name_mentions_what_could_not_be_read(make_environment, wreck_wheel):
    """The error about a component of a damaged package mentions the damage."""
    environment = make_environment(wreck_wheel)
    drop_equals(environment.site_packages)
    result = environment.program("from ttl_core import arrange; arrange(['wreck'])")
    assert result.status == 1
    assert "no component 'wreck' is installed" in result.err
    assert "acme_wreck-1.0.dist-info" in result.err.rpartition("no component 'wreck'")[2]
