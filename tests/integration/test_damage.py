"""Installations that went wrong: they break nothing, and `ttl doctor` finds them."""

import json
import re
import shlex
import shutil
from textwrap import dedent

import pytest

USE_GOOD = "from ttl_core import arrange; print(arrange(['good']))"
INFO = "acme_wreck-1.0.dist-info"


def edit(path, old, new):
    """Replace a text in a file that holds it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def lose_metadata(packages):
    """Uninstall half of it."""
    (packages / INFO / "METADATA").unlink()


def empty_metadata(packages):
    """Run out of disk while installing it."""
    (packages / INFO / "METADATA").write_text("")


def lose_version(packages):
    """Have metadata without the field Version."""
    edit(packages / INFO / "METADATA", "Version: 1.0\n", "")


def leave_over(packages):
    """Interrupt pip after it has renamed what it is about to remove."""
    (packages / INFO).rename(packages / f"~{INFO[1:]}")
    (packages / "acme_wreck.py").rename(packages / "~cme_wreck.py")


def drop_equals(packages):
    """Have a line in entry_points.txt that is no entry point."""
    edit(packages / INFO / "entry_points.txt", "wreck = ", "wreck ")


def spoil_bytes(packages):
    """Have bytes in entry_points.txt that are no text."""
    path = packages / INFO / "entry_points.txt"
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n")


def spoil_bytes_of_another_group(packages):
    """Have bytes that are no text in the entry_points.txt of a package that is none of ours."""
    (packages / INFO / "entry_points.txt").write_bytes(b"[else]\n\xff\xfe = acme_wreck\n")


def spoil_requirement(packages):
    """Have a requirement that nobody can read."""
    edit(packages / INFO / "METADATA", "Summary:", "Requires-Dist: ??? what\nSummary:")


def lose_metadata_of_a_requirement(packages):
    """Require something that has been uninstalled by half."""
    edit(packages / INFO / "METADATA", "Summary:", "Requires-Dist: acme-base>=1\nSummary:")
    (packages / "acme_base-1.0.dist-info").mkdir()
    (packages / "acme_base-1.0.dist-info" / "RECORD").touch()


def keep_older_metadata(packages):
    """Upgrade without removing the metadata of the version before."""
    older = packages / "acme_wreck-0.9.dist-info"
    shutil.copytree(packages / INFO, older)
    edit(older / "METADATA", "Version: 1.0", "Version: 0.9")


# Who the doctor has to name for each.
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
    """Build a package to be damaged."""
    return wheel("acme-wreck", {"wreck": "acme_wreck:Wreck"}, "class Wreck: ...")


@pytest.fixture(scope="module")
def place(environment, good_wheel, wreck_wheel):
    """Return an environment with a good package and one to be damaged."""
    return environment(good_wheel, wreck_wheel)


@pytest.fixture(scope="module", params=DAMAGES, ids=lambda damage: damage.__name__)
def damaged(request, place, tmp_path_factory):
    """Return an environment with a good package and a damaged one, and the latter's name."""
    intact = tmp_path_factory.mktemp("intact") / "site-packages"
    shutil.copytree(place.site_packages, intact)
    request.param(place.site_packages)
    yield place, DAMAGES[request.param]
    shutil.rmtree(place.site_packages)
    shutil.copytree(intact, place.site_packages)


def test_damage_elsewhere_breaks_nothing(damaged):
    """The other components work, and the listing lists them, whatever is wrong with a package."""
    place, _ = damaged
    assert place.program(USE_GOOD).said == "['good']\n"
    listing = place.ttl("plugins")
    assert "" == listing.err
    assert "good acme-good 1.0 available Try it out." in listing.text


def test_doctor_finds_the_damage(damaged):
    """`ttl doctor` says what is damaged, and ends with status 1."""
    place, name = damaged
    done = place.ttl("doctor")
    assert "" == done.err
    assert done.status == 1
    assert name in done.out


def test_doctor_finds_two_damages_in_one_folder(environment, wheel, wreck_wheel):
    """Each distribution that cannot be read is reported, not one a folder."""
    place = environment(wreck_wheel, wheel("acme-ruin", {"ruin": "acme_ruin:Ruin"}))
    drop_equals(place.site_packages)
    edit(place.site_packages / "acme_ruin-1.0.dist-info" / "entry_points.txt", "ruin = ", "ruin ")
    done = place.ttl("doctor")
    assert ["acme_ruin", "acme_wreck"] == sorted(set(re.findall("acme_ruin|acme_wreck", done.out)))


def test_leftovers_offer_nothing(environment, wheel, wreck_wheel):
    """What an interrupted pip renamed is not installed, and makes no name ambiguous."""
    place = environment(wreck_wheel, wheel("acme-heir", {"wreck": "acme_heir:W"}, "class W: ..."))
    leave_over(place.site_packages)
    listed = json.loads(place.ttl("plugins", "--json").said)
    assert [("wreck", "acme-heir", "available")] == [
        (row["name"], row["distribution"], row["status"]) for row in listed
    ]


def test_an_unknown_name_mentions_what_could_not_be_read(environment, wreck_wheel):
    """Whoever asks for a component of a damaged package is told of the damage."""
    place = environment(wreck_wheel)
    drop_equals(place.site_packages)
    done = place.program("from ttl_core import arrange; arrange(['wreck'])")
    assert done.status == 1
    assert "no component 'wreck' is installed" in done.err
    assert "acme_wreck-1.0.dist-info" in done.err.rpartition("no component 'wreck'")[2]


# -- one distribution in several places -----------------------------------------------------


@pytest.fixture(scope="module", params=["later", "earlier"])
def shadowed(request, wheel, environment, tmp_path_factory):
    """Return a way to run ttl where an older copy lies on the path, and the copy that counts."""
    source = "from ttl_core import LoopComponent\nclass Good(LoopComponent): ..."
    older, newer = (
        wheel("acme-good", dict.fromkeys(("good", only), "acme_good:Good"), source, version=version)
        for version, only in (("0.9", "older"), ("1.0", "newer"))
    )
    folder = tmp_path_factory.mktemp("older")
    place = environment(newer)
    place.install("--target", folder, older)
    if request.param == "earlier":
        return lambda *given: place.ttl(*given, PYTHONPATH=str(folder)), "0.9", folder
    (place.site_packages / "zz_older.pth").write_text(f"{folder}\n")
    return place.ttl, "1.0", place.site_packages


def test_of_two_copies_the_first_on_the_path_counts(shadowed):
    """The listing and the import agree on the copy that Python finds first."""
    ttl, version, folder = shadowed
    rows = json.loads(ttl("plugins", "--json").said)
    assert [
        ("good", version, "available"),
        ({"0.9": "older", "1.0": "newer"}[version], version, "available"),
    ] == [(row["name"], row["version"], row["status"]) for row in rows]
    assert f"{folder / 'acme_good.py'}" in re.sub(r"\n\s*", "", ttl("show", "good").said)


def test_doctor_finds_the_shadowed_copy(shadowed):
    """`ttl doctor` names the copy that is not used, and ends with status 1."""
    ttl, version, _ = shadowed
    done = ttl("doctor")
    assert done.status == 1
    assert f"acme-good { {'0.9': '1.0', '1.0': '0.9'}[version] } in " in done.text
    assert "is shadowed" in done.text


@pytest.mark.parametrize("spelling", ["as it is", "by a link"])
def test_a_folder_twice_on_the_path_is_one_folder(tmp_path, environment, good_wheel, spelling):
    """The same folder twice on sys.path makes no name ambiguous and is nothing for the doctor."""
    place = environment(good_wheel)
    again = place.site_packages
    if spelling == "by a link":
        again = tmp_path / "link"
        again.symlink_to(place.site_packages)
    done = place.program(
        """
        import sys
        sys.path.append(sys.argv[1])
        from ttl_core import arrange
        from ttl_core.cli import main

        print(arrange(["good"]))
        print(main(["doctor"]))
        """,
        str(again),
    )
    assert done.said == "['good']\nnothing found wrong, with 1 components installed\n0\n"


# -- editable checkouts ---------------------------------------------------------------------


def make_checkout(folder, build, name="acme-local"):
    """Write the project of a distribution with one component, as its author has it."""
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
    edit(checkout / "pyproject.toml", "local =", 'newcomer = "acme_local:Local"\nlocal =')


def mend_in(text):
    """Return the command that a message says to run, as it stands on one line."""
    return "".join(re.findall(r"pip install -e.*", text))


@pytest.fixture(scope="module")
def stale(tmp_path_factory, environment):
    """Return an environment and an editable checkout in it that has gained an entry point."""
    folder = tmp_path_factory.mktemp(
        "a-checkout-in-a-folder-with-a-long-name-as-happens-in-real-life"
    )
    checkout = make_checkout(folder, "hatchling.build")
    place = environment("--editable", checkout)
    declare_newcomer(checkout)
    return place, checkout


def test_what_a_checkout_declares_since_is_told_as_that(stale):
    """A name that only the sources know is an error that names the checkout and the mend."""
    place, checkout = stale
    done = place.program("from ttl_core import arrange; arrange(['newcomer'])")
    assert done.status == 1
    assert "no component 'newcomer' is installed" in done.err
    assert f"The editable checkout {checkout} of acme-local declares it" in done.err
    assert f"pip install -e {checkout}" == mend_in(done.err)


def test_a_stale_checkout_still_offers_what_it_did(stale):
    """The entry points that were installed go on working."""
    place, _ = stale
    assert place.program("from ttl_core import arrange; print(arrange(['local']))").said


def test_doctor_finds_a_stale_checkout(stale):
    """`ttl doctor` names the checkout and what changed, with a mend on one line to paste."""
    place, checkout = stale
    done = place.ttl("doctor")
    assert done.status == 1
    assert f"{checkout} of acme-local has changed" in done.text
    assert "newcomer" in done.out
    assert f"pip install -e {checkout}" == mend_in(done.out)


@pytest.mark.parametrize("change", ["renamed", "removed"])
def test_doctor_finds_what_a_checkout_has_dropped(tmp_path, environment, change):
    """A name that is installed but not declared any more is stale, too."""
    checkout = make_checkout(tmp_path / "checkout", "hatchling.build")
    place = environment("--editable", checkout)
    edit(
        checkout / "pyproject.toml",
        'local = "acme_local:Local"\n',
        {"renamed": 'near = "acme_local:Local"\n', "removed": ""}[change],
    )
    done = place.ttl("doctor")
    assert done.status == 1
    assert "acme-local has changed its components since it was installed" in done.text


def test_the_mend_of_a_stale_checkout_can_be_pasted(tmp_path, environment):
    """The command in the error mends a checkout in a folder with a space in its name."""
    checkout = make_checkout(tmp_path / "my checkout", "hatchling.build")
    place = environment("--editable", checkout)
    declare_newcomer(checkout)
    use_newcomer = "from ttl_core import arrange; print(arrange(['newcomer']))"
    _, _, *what = shlex.split(mend_in(place.program(use_newcomer).err))
    assert ["-e", str(checkout)] == what
    place.install(*what)
    assert place.program(use_newcomer).said == "['newcomer']\n"


@pytest.fixture(params=["dynamic entry points", "egg-info"])
def setuptools_checkout(request, tmp_path, environment):
    """Return an environment with an editable checkout that setuptools installed."""
    checkout = make_checkout(tmp_path / "checkout", "setuptools.build_meta")
    if request.param == "dynamic entry points":
        path = checkout / "pyproject.toml"
        static = path.read_text().partition("[project.entry-points")[0]
        path.write_text(static + 'dynamic = ["entry-points"]\n')
        (checkout / "setup.cfg").write_text(
            "[options.entry_points]\nttl.components =\n    local = acme_local:Local\n"
        )
    place = environment("--editable", checkout)
    if request.param == "egg-info":  # which older versions leave beside the package
        info = place.site_packages / "acme_local-1.0.dist-info"
        leftover = checkout / "src" / "acme_local.egg-info"
        leftover.mkdir()
        shutil.copy(info / "METADATA", leftover / "PKG-INFO")
        shutil.copy(info / "entry_points.txt", leftover)
    return place


def test_doctor_is_content_with_a_checkout_of_setuptools(setuptools_checkout):
    """Neither entry points outside of pyproject.toml nor its own egg-info are taken for faults."""
    done = setuptools_checkout.ttl("doctor")
    assert "nothing found wrong, with 1 components installed\n" == done.out
    assert done.status == 0
