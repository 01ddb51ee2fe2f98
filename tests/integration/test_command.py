"""The command `ttl`, as a shell runs it."""

import json
import os
import subprocess

import pytest

from ttl_core.hookspecs import POINTS

DOCUMENTED = '''
    """Not this text."""
    from ttl_core import LoopComponent, hookimpl, hookspec

    class Points:
        @hookspec
        def documented_done(self, loop): ...

    class Documented(LoopComponent):
        """Write what is measured into a file.

        More than one line is not a summary.

        Args:
            path: where the file is written to,
                which may not be there yet.
            every: how often, in batches.
            **options: what open() takes.

        Raises:
            OSError: always.
        """

        hookspecs = Points
        after = ("metrics", "ema")
        requires = "metrics"

        def __init__(self, path, *, every=10, **options): ...

        def on_log(self, loop, metrics, level): ...

        @hookimpl(trylast=True, specname="on_epoch_end")
        def write(self, loop): ...

        @hookimpl(wrapper=True)
        def around_run(self, loop):
            return (yield)

        @hookimpl(optionalhook=True)
        def elsewhere_done(self, loop): ...

    def make(size: int = 3):
        """Make one of the size."""
        return Documented("here")

    class Stranger:
        """Be no component."""
'''


@pytest.fixture(scope="module")
def place(wheel, environment, good_wheel):
    """Return an environment with which nothing is wrong."""
    offers = {"documented": "Documented", "made": "make"}
    return environment(
        good_wheel,
        wheel(
            "acme-documented",
            {name: f"acme_documented:{value}" for name, value in offers.items()},
            DOCUMENTED,
            version="2.1",
            summary="Write what is measured into a file, in any format that there is.",
        ),
    )


def status_of(done):
    """Return the status of each component in a JSON listing, by distribution and name."""
    return {f"{row['distribution']}/{row['name']}": row["status"] for row in json.loads(done.out)}


# -- ttl plugins ----------------------------------------------------------------------------


def test_plugins_lists_what_is_installed(place):
    """The listing has a row for each component, cut at 80 columns, without escape codes."""
    done = place.ttl("plugins")
    assert done.said == (
        "NAME        DISTRIBUTION     VERSION  STATUS     SUMMARY\n"
        "documented  acme-documented  2.1      available  Write what is measured into a…\n"
        "good        acme-good        1.0      available  Try it out.\n"
        "made        acme-documented  2.1      available  Write what is measured into a…\n"
    )


def test_plugins_says_that_nothing_is_installed(environment):
    """Without components the listing says so, and for which interpreter."""
    place = environment()
    assert place.ttl("plugins").said == f"no components are installed for {place.python}\n"


def test_plugins_imports_no_plugin_and_no_torch(place):
    """The plain listing, also as JSON, leaves torch and every plugin alone."""
    done = place.program(
        """
        import sys
        from ttl_core.cli import main

        main(["plugins"]), main(["plugins", "--json"])
        print({"torch", "numpy"} & set(sys.modules))
        """
    )
    assert done.said.splitlines()[-1] == "set()"
    assert set() == done.imported


def test_plugins_as_json_has_the_documented_keys(place):
    """The JSON listing is a list of objects that all have the same keys."""
    rows = json.loads(place.ttl("plugins", "--json").said)
    assert {
        "name": "good",
        "distribution": "acme-good",
        "version": "1.0",
        "status": "available",
        "summary": "Try it out.",
        "problem": None,
    } == rows[1]
    assert all(rows[0].keys() == row.keys() for row in rows)


def test_plugins_lists_whatever_is_wrong(crowd):
    """What metadata tell is a status; what only an import would tell passes for available."""
    done = crowd.ttl("plugins", "--json")
    statuses = status_of(done)
    assert "incompatible" == statuses.pop("acme-future/future")
    assert "ambiguous" == statuses.pop("acme-twin-one/twin")
    assert "ambiguous" == statuses.pop("acme-twin-two/twin")
    assert {"available"} == set(statuses.values())
    assert (1, "", set()) == (done.status, done.err, done.imported)


def test_plugins_fits_into_80_columns_whatever_is_wrong(crowd):
    """No line is longer than 80 columns or has escape codes, what is said of problems included."""
    for given in ([], ["--check"]):
        out = crowd.ttl("plugins", *given).out
        too_long = [line for line in out.splitlines() if len(line) > 80]
        assert [] == [line for line in too_long if " " in line.strip()]  # an address stays whole
        assert "\x1b" not in out


@pytest.fixture(scope="module")
def checked(crowd):
    """Check what is installed in the crowd."""
    return crowd.ttl("plugins", "--check", "--json")


def test_check_imports_each_in_a_process_of_its_own(checked):
    """Whatever happens to one, a crash included, the others are rows with their own status."""
    broken = ["needy", "angry", "quitting", "crashing", "lost", "moved", "garbled", "constant"]
    fine = ["good", "fruitless", "fussy"]  # these two fail only when something is made
    assert checked.status == 1
    assert status_of(checked) == {
        **{f"acme-{name}/{name}": "broken" for name in broken},
        **{f"acme-{name}/{name}": "available" for name in fine},
        "acme-twin-one/twin": "ambiguous",
        "acme-twin-two/twin": "ambiguous",
        "acme-future/future": "incompatible",
    }


def test_check_does_not_import_what_is_incompatible(checked):
    """A package for another core is told by its metadata, in a check too."""
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
def test_check_says_how_an_import_failed(checked, name, problem):
    """Each broken row has the reason."""
    (row,) = [row for row in json.loads(checked.out) if row["name"] == name]
    assert problem in row["problem"]


def test_check_is_content_where_all_is_well(place):
    """A check of good packages ends with status 0."""
    assert {"available"} == set(status_of(place.ttl("plugins", "--check", "--json")).values())


def test_a_reader_that_has_left_is_no_error(place):
    """`ttl plugins | true` ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    ttl = [place.folder / "bin" / "ttl", "plugins"]
    done = subprocess.run(
        ttl, stdout=writer, stderr=subprocess.PIPE, text=True, env=place.variables()
    )
    os.close(writer)
    assert ("", 0) == (done.stderr, done.returncode)


# -- ttl show -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(place):
    """Show the documented component: its sections, by heading."""
    head, *sections = place.ttl("show", "documented").said.split("\n\n")
    return {"": head} | dict(section.rstrip().split("\n", 1) for section in sections)


def test_show_begins_with_who_it_is(shown):
    """Name, distribution and version come first, then the summary."""
    assert shown[""] == (
        "documented  (acme-documented 2.1)\n    Write what is measured into a file."
    )


def test_show_lists_the_configuration(shown):
    """Each argument is there as it is written, with its default and its documentation."""
    assert shown["configuration"] == (
        "    path  (required)\n"
        "        where the file is written to, which may not be there yet.\n"
        "    every=10\n"
        "        how often, in batches.\n"
        "    **options\n"
        "        what open() takes."
    )


def test_show_lists_the_points_that_it_implements(shown):
    """All points are there: plain ones, those of hookimpls by another name, and plugins' points."""
    points = {line.split()[0] for line in shown["callback points"].splitlines()}
    assert {"around_run", "on_epoch_end", "on_log", "elsewhere_done"} <= points


def test_show_lists_the_hints(shown):
    """What the author declared about its place is there."""
    assert "    after     metrics, ema\n    requires  metrics" == shown["hints"]


def test_show_says_where_it_is_installed(place, shown):
    """The entry point and the file of its module are there."""
    unbroken = "".join(line[4:] for line in shown["installed"].splitlines())
    assert f"acme_documented:Documented{place.site_packages}/acme_documented.py" == unbroken


def test_show_says_what_can_be_known_of_a_factory(place):
    """An entry point that is a function has configuration and documentation all the same."""
    done = place.ttl("show", "acme-documented/made")
    assert "made (acme-documented 2.1) Make one of the size." in " ".join(done.said.split())
    assert "    size=3\n" in done.said


def test_show_of_a_class_that_is_no_component_says_so(environment, wheel):
    """A class that cannot be in a list is shown, or refused with its distribution; no traceback."""
    place = environment(wheel("acme-odd", {"odd": "acme_odd:Stranger"}, DOCUMENTED))
    done = place.ttl("show", "odd")
    assert "Traceback" not in done.err
    assert "acme-odd 1.0" in done.out + done.err


def test_show_of_an_unknown_name_ends_with_1(place):
    """The error is a line on stderr with a suggestion, and the status 1."""
    done = place.ttl("show", "godo")
    assert (1, "") == (done.status, done.out)
    assert done.err.startswith("ttl: no component 'godo' is installed. Did you mean 'good'?")


@pytest.mark.parametrize("name", ["angry", "future", "twin"])
def test_show_of_what_cannot_be_used_ends_with_1(crowd, name):
    """What cannot be loaded is an error of ttl's own with the status 1, not a traceback."""
    done = crowd.ttl("show", name)
    assert (1, "") == (done.status, done.out)
    assert done.err.startswith("ttl: ")
    assert f"acme-{name}" in done.err
    assert "Traceback" not in done.err


# -- ttl hooks ------------------------------------------------------------------------------


def test_hooks_lists_every_point(place):
    """Each core point is there in firing order: arguments, since when, when it fires."""
    done = place.ttl("hooks")
    lines = done.said.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert list(POINTS) == [head.partition("(")[0] for head in heads]
    assert "on_log(loop, metrics, level)  since 0.1" in heads
    assert len(POINTS) <= sum("Fires" in line or "Surround" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert set() == done.imported


# -- ttl doctor -----------------------------------------------------------------------------


def test_doctor_finds_nothing_where_nothing_is_wrong(place):
    """A sound installation is told as such, with status 0."""
    assert place.ttl("doctor").said == "nothing found wrong, with 3 components installed\n"


@pytest.fixture(scope="module")
def diagnosed(crowd):
    """Let the doctor look at the crowd."""
    return crowd.ttl("doctor")


def test_doctor_finds_all_that_is_wrong(diagnosed):
    """Each package with which something is wrong is named; then the status is 1."""
    assert (1, "") == (diagnosed.status, diagnosed.err)
    wrong = ("needy", "angry", "quitting", "crashing", "lost", "moved", "garbled", "constant")
    for name in wrong:
        assert f"'{name}' (acme-{name} 1.0) is broken: " in diagnosed.text
        assert f"pip install --upgrade --force-reinstall acme-{name}" in diagnosed.text
    assert "'future' (acme-future 1.0) is incompatible: requires ttl-core>=99" in diagnosed.text
    assert "'twin' (acme-twin-one 1.0) is ambiguous" in diagnosed.text
    assert "use('acme-twin-two/twin')" in diagnosed.text


def test_doctor_survives_a_crash(diagnosed):
    """A plugin that kills its process is one finding among the others."""
    assert "acme-crashing 1.0) is broken: importing it killed the process with signal 6" in (
        diagnosed.text
    )


def test_doctor_finds_unmet_requirements(environment, wheel):
    """What a component's distribution requires and is not there is named, with the mend."""
    requires = ["not-there-at-all>=2", "pluggy>=99", 'never-mind; extra == "more"']
    place = environment(
        wheel("acme-short", {"short": "acme_short:S"}, "class S: ...", requires=requires)
    )
    done = place.ttl("doctor")
    assert done.status == 1
    assert "acme-short requires not-there-at-all>=2, and installed is none" in done.text
    assert "acme-short requires pluggy>=99, and installed is 1." in done.text
    assert "pip install 'pluggy>=99'" in done.out
    assert "never-mind" not in done.out


# -- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize("given", [[], ["nonsense"], ["show"], ["plugins", "--colour"]])
def test_what_is_not_understood_ends_with_2(place, given):
    """A wrong command line is a usage message on stderr and the status 2."""
    done = place.ttl(*given)
    assert (2, "") == (done.status, done.out)
    assert done.err.startswith("usage: ttl")


def test_help_documents_the_exit_statuses(place):
    """`ttl --help` says what each exit status means."""
    lines = [line.split() for line in place.ttl("--help").said.splitlines()]
    assert {"0", "1", "2"} == {words[0] for words in lines if words and words[0].isdigit()}
