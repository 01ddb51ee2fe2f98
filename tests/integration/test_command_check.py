"""`ttl check`: the conformance suites of installed components, as a report."""

import json

import pytest

CHECKED = """
    import os, time, pytest
    from ttl_core import LoopComponent
    from ttl_core.testing import ComponentConformance, Step

    class Good(LoopComponent): ...

    class Needy(LoopComponent):
        def __init__(self, path): ...

    class Short(ComponentConformance):
        '''A suite of a few checks of its own in place of those to inherit.'''

        def make_components(self):
            return [Step(), "good"]

    for name in dir(ComponentConformance):
        if name.startswith("test_"):
            setattr(Short, name, None)

    class GoodSuite(Short):
        def test_passes(self): open("file", "x")

        @pytest.mark.parametrize("number", [1, 2, 3])
        def test_fails(self, number):
            assert number == 1, "it is not one"

        def test_crashes(self): os.abort()

        def test_hangs(self): time.sleep(600)

        def test_is_opted_out(self): pytest.skip("as it has no state")

        def test_passes_too(self): open("file", "x")

"""


@pytest.fixture(scope="module")
def checked(wheel, make_environment):
    """Return an environment with components to check."""
    names = {"good": "Good", "needy": "Needy", "lost": "Lost"}
    return make_environment(
        wheel(
            "acme-checked",
            {name: f"acme_checked:{value}" for name, value in names.items()},
            CHECKED,
            groups={"ttl.conformance": {"good": "acme_checked:GoodSuite"}},
        )
    )


@pytest.fixture(scope="module")
def rows(checked):
    """Check the distribution with a short time limit; return the rows by component and check."""
    result = checked.ttl("check", "Acme_Checked/", "--json", "--time-limit", "5", PYTHONPATH="")
    assert (1, "") == (result.status, result.err)
    return {(row["name"], row["check"]): row for row in json.loads(result.out)}


def outcomes(rows, name):
    """Return the outcomes of the checks of a component."""
    return {check: row["outcome"] for (owner, check), row in rows.items() if owner == name}


def test_a_failure_a_crash_and_a_hang_are_rows_among_others(rows):
    """Each check runs in a process and a folder of its own, and the others run all the same."""
    assert outcomes(rows, "good") == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_crashes": "failed",
        "test_hangs": "failed",
        "test_is_opted_out": "opted out",
        "test_passes_too": "passed",
    }


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("test_fails", "AssertionError: it is not one"),
        ("test_crashes", "it killed the process with signal 6"),
        ("test_hangs", "it did not end within 5 seconds"),
        ("test_is_opted_out", "as it has no state"),
    ],
)
def test_a_row_has_the_reason(rows, check, reason):
    """What was raised, how the process ended, or why the check is opted out."""
    assert reason == rows["good", check]["problems"][0]["reason"]


def test_the_cases_of_a_check_are_one_row(rows):
    """Those that fail are listed in it."""
    row = rows["good", "test_fails"]
    assert (3, ["2", "3"]) == (row["n_cases"], [each["case"] for each in row["problems"]])


def test_a_component_that_cannot_be_created_is_a_row(rows):
    """It has the reason once, and no check is run."""
    assert {"is_created": "failed"} == outcomes(rows, "needy") == outcomes(rows, "lost")
    (problem,) = rows["needy", "is_created"]["problems"]
    assert "It accepts: path" in problem["reason"]


@pytest.mark.parametrize(
    ("given", "status", "expected"),
    [
        (["godo"], 1, "no component 'godo' is installed. Did you mean 'good'?"),
        (["acme-chekced/"], 1, "no distribution 'acme-chekced' with components is installed. Did"),
        (["good", "--config", "a"], 2, "'a' is not KEY=VALUE"),
        (["good", "--with", "ema=[1]"], 2, "'ema=[1]' is neither NAME nor NAME={...} with a"),
    ],
)
def test_a_wrong_name_or_setting_is_refused_before_anything_runs(checked, given, status, expected):
    """The error is said before a process is started."""
    result = checked.ttl("check", *given, PYTHONPATH="")
    assert (status, "", set()) == (result.status, result.out, result.imported)
    assert expected in result.err


def test_without_pytest_it_says_what_to_install(checked):
    """The kit is an extra of the core."""
    result = checked.program(
        """
        import importlib.util
        find_spec = importlib.util.find_spec
        importlib.util.find_spec = lambda name: None if name == "pytest" else find_spec(name)
        from ttl_core.cli import main
        raise SystemExit(main(["check", "good"]))
        """
    )
    assert (1, "") == (result.status, result.out)
    assert "pip install 'ttl-core[testing]'" in result.err
