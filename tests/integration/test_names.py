"""Components by name: which package they come from, and what an error says."""

import pytest

LOADABLE_NOT = ("needy", "angry", "quitting", "lost", "moved", "garbled", "constant", "fruitless")


@pytest.fixture(scope="module")
def trained(crowd):
    """Train for an epoch with some components of the crowd, named in all ways."""
    return crowd.program(
        """
        import torch
        from ttl_core import TrainTestLoop, use

        components = [
            "good",
            use("Acme.Good/good", greeting="hello", times=2),
            "acme-twin-two/twin",
            "acme-twin-one/twin",
        ]
        loop = TrainTestLoop(torch.nn.Identity(), components, [0])
        loop.train(1)
        print(loop.components)
        """
    )


def test_installed_components_run_by_their_names(trained):
    """A name, distribution/name in any spelling, and use() with configuration run as listed."""
    assert trained.said.splitlines()[:4] == [
        "acme_good 0",
        "hello hello 0",
        "acme_twin_two 0",
        "acme_twin_one 0",
    ]


def test_nothing_is_imported_but_what_is_named(trained):
    """Of all that is installed only the packages that were named are imported."""
    assert {"acme_good", "acme_twin_two", "acme_twin_one"} == trained.imported


def test_a_printed_list_says_where_each_comes_from(trained):
    """print(loop.components) shows names in the list, distributions and versions."""
    rows = [" ".join(line.split()) for line in trained.said.splitlines()]
    assert "0 good acme-good 1.0" in rows
    assert "1 good#2 acme-good 1.0" in rows
    assert "3 twin#2 acme-twin-one 1.0" in rows


def test_use_imports_nothing(crowd):
    """A spec names a component and leaves its package alone."""
    done = crowd.program("from ttl_core import use; print(use('angry'), use('nowhere', size=3))")
    assert done.said == "use('angry') use('nowhere', size=3)\n"
    assert set() == done.imported


def test_packages_that_share_a_namespace_are_told_apart(wheel, environment):
    """A component made by hand is attributed to its own distribution, not to a neighbour."""
    source = "from ttl_core import LoopComponent\nclass Own(LoopComponent): ..."
    names = ("ema", "sam", "swa")
    place = environment(
        *(wheel(f"acme-{n}", {n: f"acme.{n}:Own"}, source, module=f"acme.{n}") for n in names)
    )
    done = place.program(
        """
        import torch
        from acme import ema, sam, swa
        from ttl_core import TrainTestLoop

        loop = TrainTestLoop(torch.nn.Identity(), [ema.Own(), sam.Own(), swa.Own()])
        print(*(entry["distribution"] for entry in loop.manifest()))
        """
    )
    assert done.said == "acme-ema acme-sam acme-swa\n"


# -- what cannot be used --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tried(crowd, try_each):
    """Try in one process what is wrong in the crowd; return the errors and what was imported."""
    names = (*LOADABLE_NOT, "fussy", "future", "twin", "goood", "acme-twin-two/good")
    return try_each(crowd, *map(repr, names), "use('good', greetin='hello')")


@pytest.fixture(scope="module")
def error_of(tried):
    """Return a function from an item of a list to the type and the text of what it raised."""
    return lambda item: tried[0][item]


def test_wrong_configuration_is_an_error_that_says_what_is_right(error_of):
    """The error names component and distribution, the wrong argument and all right ones."""
    kind, text = error_of("use('good', greetin='hello')")
    assert kind == "ConfigurationError"
    assert "component 'good' (acme-good 1.0)" in text
    assert "use('good', greetin='hello')" in text
    assert "Did you mean 'greeting'?" in text
    assert "It accepts: greeting='acme_good', times=1" in text


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("needy", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("angry", "RuntimeError: not on Mondays"),
        ("quitting", "SystemExit"),
        ("lost", "has no attribute 'Nothing'"),
        ("moved", "No module named 'acme_moved_away'"),
        ("garbled", "Invalid object reference"),
        ("constant", "42, no class or function"),
        ("fruitless", "made 'a plum', which is no LoopComponent"),
    ],
)
def test_what_cannot_be_loaded_says_who_and_why(error_of, name, cause):
    """The error names component, distribution, version and entry point, the cause and a remedy."""
    kind, text = error_of(f"'{name}'")
    assert kind == "PluginError"
    assert f"component '{name}' (acme-{name} 1.0)" in text
    assert f"'acme_{name}" in text  # the entry point's value
    assert cause in text
    assert "pip install" in text or "Report it to the author of acme-" in text


def test_what_fails_while_it_is_made_keeps_its_error(error_of):
    """An exception of a factory passes through, with a note that says whose it is."""
    kind, text = error_of("'fussy'")
    assert kind == "ValueError"
    assert text.startswith("not this loop\n")
    assert "'fussy' (acme-fussy 1.0)" in text


def test_a_package_for_another_core_is_refused_unimported(tried, error_of):
    """A requirement of another ttl-core is found in metadata, before the import."""
    kind, text = error_of("'future'")
    assert kind == "PluginError"
    assert "component 'future' (acme-future 1.0)" in text
    assert "requires ttl-core>=99, and installed is ttl-core 0." in text
    assert "pip install --upgrade ttl-core acme-future" in text
    assert "acme_future" not in tried[1]
    assert "acme_lost" in tried[1]


def test_a_requirement_for_another_python_does_not_count(wheel, environment):
    """Requirements of ttl-core whose marker does not hold here refuse nothing."""
    requires = ['ttl-core>=99; python_version < "3"', 'ttl-core>=99; extra == "next"']
    old = wheel("acme-old", {"old": "acme_old:Old"}, "class Old: ...", requires=requires)
    place = environment(old)
    assert place.program("from ttl_core import arrange; print(arrange(['old']))").said
    assert place.ttl("plugins").said.splitlines()[1].split()[3] == "available"


def test_a_name_of_two_distributions_is_an_error_with_the_choices(error_of):
    """The bare name is refused, with what to write for each of the distributions."""
    kind, text = error_of("'twin'")
    assert kind == "UnknownNameError"
    assert "'acme-twin-one/twin'" in text
    assert "'acme-twin-two/twin'" in text


def test_an_unknown_name_says_what_there_is(crowd, error_of):
    """The error suggests the nearest name, lists all and says which interpreter was searched."""
    kind, text = error_of("'goood'")
    assert kind == "UnknownNameError"
    assert "no component 'goood' is installed. Did you mean 'good'?" in text
    assert "angry, constant, crashing, fruitless, fussy, future, garbled, good, lost" in text
    assert str(crowd.python) in text


def test_a_name_of_another_distribution_says_whose_it_is(error_of):
    """A name that only another distribution offers is told from one that nobody knows."""
    kind, text = error_of("'acme-twin-two/good'")
    assert kind == "UnknownNameError"
    assert "no component 'acme-twin-two/good' is installed" in text
    assert "'good' is offered by acme-good" in text


# -- how often is looked --------------------------------------------------------------------

COUNT_SCANS = """
import sys
from importlib_metadata import Distribution

discover, n_scans = Distribution.discover, 0

def counting(**kwargs):
    global n_scans
    n_scans += "name" not in kwargs
    return discover(**kwargs)

Distribution.discover = counting
"""


def test_many_loops_take_one_scan(crowd):
    """However many loops are made of however many names, the distributions are listed once."""
    program = """
import torch
from ttl_core import TrainTestLoop

for _ in range(20):
    loop = TrainTestLoop(torch.nn.Identity(), ["good", "acme-twin-one/twin", "good"], [0])
    print(loop.components, loop.explain(), loop.manifest(), file=sys.stderr)
    loop.components.append("acme-twin-two/twin")
print(n_scans)
"""
    assert crowd.program(COUNT_SCANS + program).said == "1\n"


def test_only_unknown_names_scan_again(crowd):
    """A name that is not there is looked for again at each use; one that is there is not."""
    program = """
from ttl_core import UnknownNameError, arrange

def scans_for(name):
    before = n_scans
    try:
        arrange([name])
    except UnknownNameError:
        pass
    return n_scans - before

known, unknown, again, still = map(scans_for, ("good", "nowhere", "nowhere", "good"))
print(known, unknown > 0, again == unknown, still)
"""
    assert crowd.program(COUNT_SCANS + program).said == "1 True True 0\n"


def test_what_is_installed_meanwhile_is_found(environment, good_wheel):
    """A package that is installed while a program runs can be used in it by name."""
    place = environment()
    done = place.program(
        """
        import subprocess, sys
        from ttl_core import UnknownNameError, arrange

        try:
            arrange(["good"])
        except UnknownNameError:
            print("absent")
        subprocess.run(sys.argv[1:], check=True)
        print(arrange(["good"]))
        """,
        *place.pip_install(good_wheel),
    )
    assert done.said == "absent\n['good']\n"
