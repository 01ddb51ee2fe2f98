"""Several copies of one distribution on the path, and one folder that is on the path twice."""

import json
import re

import pytest
from environments import unpack


@pytest.fixture(scope="module", params=["later", "earlier"])
def shadowed(request, wheel, make_environment, tmp_path_factory):
    """Return a function that runs ttl where there are two copies, and the one that is used."""
    source = "from ttl_core import LoopComponent\nclass Good(LoopComponent): ..."
    older, newer = (
        wheel("acme-good", dict.fromkeys(("good", only), "acme_good:Good"), source, version=version)
        for version, only in (("0.9", "older"), ("1.0", "newer"))
    )
    folder = tmp_path_factory.mktemp("older")
    environment = make_environment(newer)
    unpack(older, folder)
    if request.param == "earlier":
        return lambda *given: environment.ttl(*given, PYTHONPATH=str(folder)), "0.9", folder
    (environment.site_packages / "zz_older.pth").write_text(f"{folder}\n")
    return environment.ttl, "1.0", environment.site_packages


def test_of_two_copies_the_first_on_the_path_is_used(shadowed):
    """The listing and the import use the copy that Python finds first."""
    ttl, version, folder = shadowed
    rows = json.loads(ttl("plugins", "--json").success)
    assert [
        ("good", version, "available"),
        ({"0.9": "older", "1.0": "newer"}[version], version, "available"),
    ] == [(row["name"], row["version"], row["status"]) for row in rows]
    assert f"{folder / 'acme_good.py'}" in re.sub(r"\n\s*", "", ttl("show", "good").success)


def test_doctor_finds_the_shadowed_copy(shadowed):
    """`ttl doctor` names the copy that is not used, and ends with status 1."""
    ttl, version, _ = shadowed
    result = ttl("doctor")
    assert result.status == 1
    assert f"acme-good { {'0.9': '1.0', '1.0': '0.9'}[version] } in " in result.text
    assert "is shadowed" in result.text


@pytest.mark.parametrize("spelling", ["as it is", "by a link"])
def test_a_folder_twice_on_the_path_is_one_folder(tmp_path, make_environment, good_wheel, spelling):
    """A folder that is on sys.path twice makes no name ambiguous, and is not reported."""
    environment = make_environment(good_wheel)
    again = environment.site_packages
    if spelling == "by a link":
        again = tmp_path / "link"
        again.symlink_to(environment.site_packages)
    result = environment.program(
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
    assert result.success == "['good']\nno problems found, with 1 component installed\n0\n"
