"""The command `ttl`, as a shell runs it: `ttl hooks`, `ttl doctor`, and wrong command lines."""

import importlib.metadata
import platform
import re

import pytest

from ttl_core.hookspecs import POINTS

# -- ttl hooks ------------------------------------------------------------------------------


def test_hooks_lists_every_point_of_the_core(sound):
    """Each core point is listed in firing order: arguments, since which version, when it fires."""
    result = sound.ttl("hooks", "--core")
    lines = result.success.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert list(POINTS) == [head.partition("(")[0] for head in heads]
    assert "on_log(loop, metrics, level)  since 0.1" in heads
    assert len(POINTS) <= sum("Fires" in line or "Surround" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert set() == result.imported


def test_hooks_lists_the_points_that_components_provide(sound):
    """They follow those of the core, with the component that provides them."""
    result = sound.ttl("hooks")
    assert result.success.endswith(
        "documented_done(loop)  by 'documented' (acme-documented 2.1)\n    undocumented\n"
    )
    assert {"acme_documented", "acme_good"} == result.imported


# -- ttl doctor -----------------------------------------------------------------------------


def test_doctor_finds_nothing_if_nothing_is_wrong(sound):
    """An installation without problems is reported as such, with status 0."""
    assert sound.ttl("doctor").success == "no problems found, with 3 components installed\n"


@pytest.fixture(scope="module")
def diagnosed(crowd):
    """Return the result of `ttl doctor` for the crowd."""
    return crowd.ttl("doctor")


def test_doctor_finds_all_that_is_wrong(diagnosed):
    """Each package in which something is wrong is named, and the status is 1."""
    assert (1, "") == (diagnosed.status, diagnosed.err)
    wrong = ("needy", "angry", "quitting", "crashing", "lost", "moved", "garbled", "constant")
    for name in wrong:
        assert f"'{name}' (acme-{name} 1.0) is broken: " in diagnosed.text
        assert f"pip install --upgrade --force-reinstall acme-{name}" in diagnosed.text
    assert "'future' (acme-future 1.0) is incompatible: requires ttl-core>=99" in diagnosed.text
    assert "'twin' (acme-twin-one 1.0) is ambiguous" in diagnosed.text
    assert "use('acme-twin-two/twin')" in diagnosed.text


def test_doctor_says_a_reason_that_components_share_once(make_environment, wheel):
    """Three components of one module that cannot be imported are one problem."""
    names = {name: f"acme_needing:{name.title()}" for name in ("one", "two", "three")}
    result = make_environment(wheel("acme-needing", names, "import not_there")).ttl("doctor")
    assert "'one', 'three', 'two' (acme-needing 1.0) are broken: importing" in result.text
    assert "1 problem found, with 3 components installed" in result.text


def test_doctor_survives_a_crash(diagnosed):
    """A plugin that kills its process is one finding among the others."""
    assert "acme-crashing 1.0) is broken: importing it killed the process with signal 6" in (
        diagnosed.text
    )


def test_doctor_finds_unmet_requirements(make_environment, wheel):
    """A requirement of a component's distribution that is not met is named, with the fix."""
    requires = ["not-there-at-all>=2", "pluggy>=99", 'never-mind; extra == "more"']
    short = make_environment(
        wheel("acme-short", {"short": "acme_short:S"}, "class S: ...", requires=requires)
    )
    result = short.ttl("doctor")
    assert result.status == 1
    assert "acme-short requires not-there-at-all>=2, and installed is none" in result.text
    assert "acme-short requires pluggy>=99, and installed is 1." in result.text
    assert "pip install 'pluggy>=99'" in result.out
    assert "never-mind" not in result.out


# -- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize("given", [[], ["nonsense"], ["show"], ["plugins", "--colour"]])
def test_a_wrong_command_line_ends_with_2(sound, given):
    """A wrong command line is a usage message on stderr and the status 2."""
    result = sound.ttl(*given)
    assert (2, "") == (result.status, result.out)
    assert result.err.startswith("usage: ttl")


def test_versions_are_a_line(sound):
    """Those that a report of a bug needs; nothing is imported for it."""
    result = sound.ttl("--version")
    core = re.escape(importlib.metadata.version("ttl-core"))
    pluggy = re.escape(importlib.metadata.version("pluggy"))
    line = rf"ttl-core {core}, torch \S+, pluggy {pluggy}, Python {platform.python_version()}\n"
    assert re.fullmatch(line, result.success)
    assert set() == result.imported


def test_help_documents_the_exit_statuses(sound):
    """`ttl --help` says what each exit status means."""
    lines = [line.split() for line in sound.ttl("--help").success.splitlines()]
    assert {"0", "1", "2"} == {words[0] for words in lines if words and words[0].isdigit()}
