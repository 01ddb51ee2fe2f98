"""`ttl plugins`, as a shell runs it: the listing of what is installed, and its check."""

import json
import os
import subprocess

import pytest


def statuses_in(result):
    """Return the status of each component in a JSON listing, by distribution and name."""
    return {f"{row['distribution']}/{row['name']}": row["status"] for row in json.loads(result.out)}


def test_plugins_lists_what_is_installed(sound):
    """The listing has a row for each component, with what its docstring says."""
    result = sound.ttl("plugins")
    assert result.success == (
        "NAME        DISTRIBUTION     VERSION  SUMMARY\n"
        "documented  acme-documented  2.1      Write what is measured into a file.\n"
        "good        acme-good        1.0      Try it out.\n"
        "made        acme-documented  2.1      Make one of the size.\n"
    )


def test_the_summary_of_a_long_name_is_below_it(make_environment, wheel):
    """Its column is as wide as the other rows leave room for."""
    long = "acme-components-of-a-laboratory"
    environment = make_environment(
        wheel("acme-short", {"one": "acme_short:One"}), wheel(long, {"two": "acme_long:Two"})
    )
    assert environment.ttl("plugins").success == (
        "NAME  DISTRIBUTION  VERSION  SUMMARY\n"
        "one   acme-short    1.0      Try it out.\n"
        f"two   {long}  1.0\n"
        "                             Try it out.\n"
    )


def test_plugins_says_that_nothing_is_installed(core_environment):
    """Without components, the listing says so and names the interpreter."""
    expected = f"no components are installed for {core_environment.python}\n"
    assert expected == core_environment.ttl("plugins").success


def test_plugins_imports_no_plugin_and_no_torch(sound):
    """The plain listing, also as JSON, imports neither torch nor a plugin."""
    result = sound.program(
        """
        import sys
        from ttl_core.cli import main

        main(["plugins"]), main(["plugins", "--json"])
        print({"torch", "numpy"} & set(sys.modules))
        """
    )
    assert result.success.splitlines()[-1] == "set()"
    assert set() == result.imported


def test_plugins_as_json_has_the_documented_keys(sound):
    """The JSON listing is a list of objects that all have the same keys."""
    rows = json.loads(sound.ttl("plugins", "--json").success)
    assert {
        "name": "good",
        "distribution": "acme-good",
        "version": "1.0",
        "status": "available",
        "summary": "Try it out.",
        "problem": None,
    } == rows[1]
    assert all(rows[0].keys() == row.keys() for row in rows)


def test_plugins_lists_what_is_wrong_in_the_metadata(crowd):
    """The status is by metadata alone; that of the command says whether it did its work (B6)."""
    result = crowd.ttl("plugins", "--json")
    statuses = statuses_in(result)
    assert "incompatible" == statuses.pop("acme-future/future")
    assert "ambiguous" == statuses.pop("acme-twin-one/twin")
    assert "ambiguous" == statuses.pop("acme-twin-two/twin")
    assert {"available"} == set(statuses.values())
    assert (0, "", set()) == (result.status, result.err, result.imported)


def test_plugins_fits_into_80_columns_in_every_case(crowd):
    """No line is longer than 80 columns or has escape codes, including those about problems."""
    for given in ([], ["--check"]):
        out = crowd.ttl("plugins", *given).out
        too_long = [line for line in out.splitlines() if len(line) > 80]
        assert [] == [line for line in too_long if " " in line.strip()]  # an address stays whole
        assert "\x1b" not in out


@pytest.fixture(scope="module")
def checked(crowd):
    """Check what is installed in the crowd."""
    return crowd.ttl("plugins", "--check", "--json")


def test_check_imports_each_component_in_its_own_process(checked):
    """If one fails, even by a crash, the others are still listed with their own status."""
    broken = ["needy", "angry", "quitting", "crashing", "lost", "moved", "garbled", "constant"]
    fine = ["good", "fruitless", "fussy"]  # these two fail only when something is made
    assert checked.status == 1
    assert statuses_in(checked) == {
        **{f"acme-{name}/{name}": "broken" for name in broken},
        **{f"acme-{name}/{name}": "available" for name in fine},
        "acme-twin-one/twin": "ambiguous",
        "acme-twin-two/twin": "ambiguous",
        "acme-future/future": "incompatible",
    }


def test_check_does_not_import_what_is_incompatible(checked):
    """A package for another core is found by its metadata, in a check too."""
    assert "acme_future" not in checked.imported
    assert {"acme_good", "acme_angry", "acme_crashing"} <= checked.imported


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("crashing", "signal 6"),
        ("angry", "RuntimeError: not on Mondays"),
        ("lost", "has no attribute 'Nothing'"),
    ],
)
def test_check_gives_the_reason_of_a_failed_import(checked, name, problem):
    """Each broken row has the reason."""
    (row,) = [row for row in json.loads(checked.out) if row["name"] == name]
    assert problem in row["problem"]


def test_check_succeeds_if_nothing_is_wrong(sound):
    """A check of good packages ends with status 0."""
    assert {"available"} == set(statuses_in(sound.ttl("plugins", "--check", "--json")).values())


def test_a_closed_pipe_is_no_error(sound):
    """`ttl plugins | true` ends without a message."""
    reader, writer = os.pipe()
    os.close(reader)
    ttl = [sound.folder / "bin" / "ttl", "plugins"]
    result = subprocess.run(
        ttl, stdout=writer, stderr=subprocess.PIPE, text=True, env=sound.variables()
    )
    os.close(writer)
    assert ("", 0) == (result.stderr, result.returncode)
