"""Components by name: which package they come from, and what an error says."""

import json

import pytest

NOT_LOADABLE = ("needy", "angry", "quitting", "lost", "moved", "garbled", "constant", "fruitless")


@pytest.fixture(scope="module")
def trained(crowd):
    """Train for an epoch with some components of the crowd, named in every possible way."""
    return crowd.torch_program(
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
    assert trained.success.splitlines()[:4] == [
        "acme_good 0",
        "hello hello 0",
        "acme_twin_two 0",
        "acme_twin_one 0",
    ]


def test_only_what_is_named_is_imported(trained):
    """Of all installed packages, only those that were named are imported."""
    assert {"acme_good", "acme_twin_two", "acme_twin_one"} == trained.imported


def test_a_printed_list_shows_the_distribution_of_each_component(trained):
    """print(loop.components) shows names in the list, distributions and versions."""
    rows = [" ".join(line.split()) for line in trained.success.splitlines()]
    assert "0 good acme-good 1.0" in rows
    assert "1 good#2 acme-good 1.0" in rows
    assert "3 twin#2 acme-twin-one 1.0" in rows


def test_use_imports_nothing(crowd):
    """use() makes a spec without importing the package."""
    result = crowd.program("from ttl_core import use; print(use('angry'), use('nowhere', size=3))")
    assert result.success == "use('angry') use('nowhere', size=3)\n"
    assert set() == result.imported


def test_packages_that_share_a_namespace_are_distinguished(wheel, make_environment):
    """A component made by hand is attributed to its own distribution, not to a neighbour."""
    source = "from ttl_core import LoopComponent\nclass Own(LoopComponent): ..."
    names = ("ema", "sam", "swa")
    environment = make_environment(
        *(wheel(f"acme-{n}", {n: f"acme.{n}:Own"}, source, module=f"acme.{n}") for n in names)
    )
    result = environment.torch_program(
        """
        import torch
        from acme import ema, sam, swa
        from ttl_core import TrainTestLoop

        loop = TrainTestLoop(torch.nn.Identity(), [ema.Own(), sam.Own(), swa.Own()])
        print(*(entry["distribution"] for entry in loop.manifest()))
        """
    )
    assert result.success == "acme-ema acme-sam acme-swa\n"


# -- what cannot be used --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tried(crowd, try_each):
    """Try in one process all that is wrong in the crowd; return errors and imported modules."""
    names = (*NOT_LOADABLE, "fussy", "future", "twin", "goood", "acme-twin-two/good")
    return try_each(crowd, *map(repr, names), "use('good', greetin='hello')")


@pytest.fixture(scope="module")
def error_of(tried):
    """Return a function from an item of a list to the type and the text of what it raised."""
    return lambda item: tried[0][item]


def test_wrong_configuration_is_an_error_with_the_accepted_arguments(error_of):
    """The error names component and distribution, the wrong argument and all accepted ones."""
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
        ("constant", "42, not a class or function"),
        ("fruitless", "returned 'a plum', which is not a LoopComponent"),
    ],
)
def test_a_component_that_cannot_be_loaded_is_an_error_with_the_cause(error_of, name, cause):
    """The error names component, distribution, version and entry point, the cause and a fix."""
    kind, text = error_of(f"'{name}'")
    assert kind == "PluginError"
    assert f"component '{name}' (acme-{name} 1.0)" in text
    assert f"'acme_{name}" in text  # the entry point's value
    assert cause in text
    assert "pip install" in text or "Report it to the author of acme-" in text


def test_an_exception_of_a_factory_passes_unchanged(error_of):
    """An exception of a factory passes through, with a note that names the component."""
    kind, text = error_of("'fussy'")
    assert kind == "ValueError"
    assert text.startswith("not this loop\n")
    assert "'fussy' (acme-fussy 1.0)" in text


def test_a_package_for_another_core_is_refused_without_import(tried, error_of):
    """A requirement of another version of ttl-core is found in metadata, before the import."""
    kind, text = error_of("'future'")
    assert kind == "PluginError"
    assert "component 'future' (acme-future 1.0)" in text
    assert "requires ttl-core>=99, and installed is ttl-core 0." in text
    assert "pip install --upgrade ttl-core acme-future" in text
    assert "acme_future" not in tried[1]
    assert "acme_lost" in tried[1]


def test_a_requirement_for_another_python_is_ignored(wheel, make_environment):
    """A requirement of ttl-core whose marker does not apply here refuses nothing."""
    requires = ['ttl-core>=99; python_version < "3"', 'ttl-core>=99; extra == "next"']
    old = wheel("acme-old", {"old": "acme_old:Old"}, "class Old: ...", requires=requires)
    environment = make_environment(old)
    assert environment.program("from ttl_core import arrange; print(arrange(['old']))").success
    (row,) = json.loads(environment.ttl("plugins", "--json").success)
    assert row["status"] == "available"


def test_a_name_of_two_distributions_is_an_error_with_the_choices(error_of):
    """The bare name is refused, with the name to write for each distribution."""
    kind, text = error_of("'twin'")
    assert kind == "UnknownNameError"
    assert "'acme-twin-one/twin'" in text
    assert "'acme-twin-two/twin'" in text


def test_an_unknown_name_is_an_error_with_the_installed_names(crowd, error_of):
    """The error suggests the nearest name, lists all, and names the interpreter."""
    kind, text = error_of("'goood'")
    assert kind == "UnknownNameError"
    assert "no component 'goood' is installed. Did you mean 'good'?" in text
    assert "angry, constant, crashing, fruitless, fussy, future, garbled, good, lost" in text
    assert str(crowd.python) in text


def test_a_name_of_another_distribution_is_an_error_that_names_it(error_of):
    """A name that only another distribution offers is distinguished from an unknown one."""
    kind, text = error_of("'acme-twin-two/good'")
    assert kind == "UnknownNameError"
    assert "no component 'acme-twin-two/good' is installed" in text
    assert "'good' is offered by acme-good" in text


# -- how often installed distributions are scanned --------------------------------------------

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
    """For any number of loops and of names, the installed distributions are listed once."""
    program = """
import torch
from ttl_core import TrainTestLoop

for _ in range(20):
    loop = TrainTestLoop(torch.nn.Identity(), ["good", "acme-twin-one/twin", "good"], [0])
    print(loop.components, loop.explain(), loop.manifest(), file=sys.stderr)
    loop.components.append("acme-twin-two/twin")
print(n_scans)
"""
    assert crowd.torch_program(COUNT_SCANS + program).success == "1\n"


def test_only_unknown_names_scan_again(crowd):
    """An unknown name causes a scan at each use; a known one causes none."""
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
    assert crowd.program(COUNT_SCANS + program).success == "1 True True 0\n"


def test_a_package_installed_while_a_program_runs_is_found(make_environment, good_wheel):
    """A package that is installed while a program runs can be used in it by name."""
    empty = make_environment()
    result = empty.program(
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
        *empty.pip_install(good_wheel),
    )
    assert result.success == "absent\n['good']\n"
