"""B5: installations in which names were ambiguous, hidden or refused without need."""

import json

import pytest
from environments import replace_text

SOURCE = "from ttl_core import LoopComponent\nclass Good(LoopComponent): ..."
USE = "from ttl_core import arrange; print(arrange(['good']))"


def write_egg_info(folder, name, *names, version="1.0"):
    """Write what setuptools leaves in the sources of a distribution."""
    info = folder / f"{name}.egg-info"
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    declared = "\n".join(f"{one} = acme_good:Good" for one in names)
    (info / "entry_points.txt").write_text(f"[ttl.components]\n{declared}\n")
    return info


def test_two_spellings_of_one_distribution_are_one(make_environment, wheel, tmp_path):
    """The .egg-info of the sources (acme_good) and the installed acme-good are not ambiguous."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    write_egg_info(tmp_path, "acme_good", "good")
    assert "['good']\n" == environment.program(USE, PYTHONPATH=str(tmp_path)).success


def test_a_name_that_only_a_stale_copy_has_is_not_offered(make_environment, wheel):
    """A copy further down the path is never imported, so its names are not installed."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    folder = environment.site_packages / "zz-older"
    write_egg_info(folder, "acme_good", "good", "older", version="0.9")
    (environment.site_packages / "zz_older.pth").write_text(f"{folder}\n")
    rows = json.loads(environment.ttl("plugins", "--json").success)
    assert ["good"] == [row["name"] for row in rows]


def test_a_namespace_package_that_appears_later_is_found(make_environment, tmp_path):
    """A name that is unknown invalidates Python's caches before the second scan."""
    environment = make_environment()
    (tmp_path / "acme" / "one").mkdir(parents=True)
    (tmp_path / "acme" / "one" / "__init__.py").write_text("")
    result = environment.program(
        """
        import sys, pathlib, acme.one
        from ttl_core import UnknownNameError, arrange
        folder = pathlib.Path(sys.argv[1])
        try:
            arrange(["good"])
        except UnknownNameError:
            pass
        package = folder / "acme" / "late"
        package.mkdir()
        (package / "__init__.py").write_text(
            "from ttl_core import LoopComponent\\nclass Good(LoopComponent): ..."
        )
        info = folder / "acme_late-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: acme-late\\nVersion: 1.0\\n")
        (info / "entry_points.txt").write_text("[ttl.components]\\ngood = acme.late:Good\\n")
        print(arrange(["good"]))
        """,
        tmp_path,
        PYTHONPATH=str(tmp_path),
    )
    assert "['good']\n" == result.success


def test_an_unreadable_requirement_of_another_package_does_not_block(make_environment, wheel):
    """Only what a distribution requires of ttl-core decides whether it fits."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    metadata = environment.site_packages / "acme_good-1.0.dist-info" / "METADATA"
    replace_text(metadata, "Summary:", "Requires-Dist: other (>=1.0.*\nSummary:")
    assert "['good']\n" == environment.program(USE).success


@pytest.mark.parametrize("requirement", ["ttl-core ???", "ttl_core (>=0"])
def test_an_unreadable_requirement_of_the_core_is_an_error(make_environment, wheel, requirement):
    """Whether it fits cannot be told, so it is not imported."""
    environment = make_environment(wheel("acme-good", {"good": "acme_good:Good"}, SOURCE))
    metadata = environment.site_packages / "acme_good-1.0.dist-info" / "METADATA"
    replace_text(metadata, "Summary:", f"Requires-Dist: {requirement}\nSummary:")
    assert "has an unreadable requirement" in environment.program(USE).err


@pytest.mark.parametrize("name", ["Bad_Name", "good ", "GOOD"])
def test_arrange_refuses_what_a_loop_refuses(make_environment, wheel, name):
    """A name that is not one by the grammar is an error, also where it is declared."""
    environment = make_environment(wheel("acme-good", {name.strip(): "acme_good:Good"}, SOURCE))
    result = environment.program(f"from ttl_core import arrange; arrange([{name!r}])")
    assert "cannot be a component's name" in result.err
