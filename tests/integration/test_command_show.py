"""`ttl show`, as a shell runs it: what a component is, takes and implements."""

import pytest


@pytest.fixture(scope="module")
def shown(sound):
    """Show the documented component: its sections, by heading."""
    head, *sections = sound.ttl("show", "documented").success.split("\n\n")
    return {"": head} | dict(section.rstrip().split("\n", 1) for section in sections)


def test_show_begins_with_name_and_distribution(shown):
    """Name, distribution and version come first, then the summary."""
    assert shown[""] == (
        "documented  (acme-documented 2.1)\n    Write what is measured into a file."
    )


def test_show_lists_the_configuration(shown):
    """Each argument is shown as it is written, with its default and its documentation."""
    assert shown["configuration"] == (
        "    path  (required)\n"
        "        where the file is written to, which may not be there yet.\n"
        "    every=10\n"
        "        how often, in batches.\n"
        "    **options\n"
        "        what open() takes."
    )


def test_show_lists_the_points_that_it_implements(shown):
    """All points are listed: plain ones, those of renamed hookimpls, and points of plugins."""
    points = {line.split()[0] for line in shown["callback points"].splitlines()}
    assert {"around_run", "on_epoch_end", "on_log", "elsewhere_done"} <= points


def test_show_lists_the_points_that_it_provides(shown):
    """Each is listed with its arguments and the first paragraph of its documentation."""
    assert "    documented_done(loop)\n        undocumented" == shown["callback points provided"]


def test_show_lists_the_hints(shown):
    """What the author declared about its position is shown."""
    assert "    after     metrics, ema\n    requires  metrics" == shown["hints"]


def test_show_names_the_file_of_the_module(sound, shown):
    """The entry point and the file of its module are shown."""
    unbroken = "".join(line[4:] for line in shown["installed"].splitlines())
    assert f"acme_documented:Documented{sound.site_packages}/acme_documented.py" == unbroken


def test_show_documents_a_factory(sound):
    """An entry point that is a function has configuration and documentation too."""
    result = sound.ttl("show", "acme-documented/made")
    assert "made (acme-documented 2.1) Make one of the size." in " ".join(result.success.split())
    assert "    size=3\n" in result.success


def test_show_of_a_class_that_is_no_component_has_no_traceback(odd):
    """A class that cannot be in a list is shown, or refused with its distribution; no traceback."""
    result = odd.ttl("show", "odd")
    assert "Traceback" not in result.err
    assert "acme-odd 1.0" in result.out + result.err


def test_show_of_an_unknown_name_ends_with_1(sound):
    """The error is a line on stderr with a suggestion, and the status 1."""
    result = sound.ttl("show", "godo")
    assert (1, "") == (result.status, result.out)
    assert result.err.startswith("ttl: no component 'godo' is installed. Did you mean 'good'?")


@pytest.mark.parametrize("name", ["angry", "future", "twin"])
def test_show_of_an_unusable_component_ends_with_1(crowd, name):
    """A component that cannot be loaded is an error of ttl's own with status 1, no traceback."""
    result = crowd.ttl("show", name)
    assert (1, "") == (result.status, result.out)
    assert result.err.startswith("ttl: ")
    assert f"acme-{name}" in result.err
    assert "Traceback" not in result.err
