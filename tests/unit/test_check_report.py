"""What `ttl check` prints of what it is told about the cases of checks."""

import json

import pytest

from ttl_core.cli import check, main

COMPONENT = "ttl-optim/ema"


def row(name, outcome="passed", reason=None, case=None):
    """Return what is told about a case."""
    return {
        "component": COMPONENT,
        "check": name,
        "case": case,
        "seconds": 0.5,
        "outcome": outcome,
        "reason": reason,
    }


ROWS = [
    row("test_a"),
    row("test_b", case="1"),
    *(row("test_b", "failed", "it differs", case=str(number)) for number in range(2, 7)),
    row("test_c", "opted out", "it has no state"),
    row("test_d", "unclear", "it was not called"),
]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command where checks have told some rows.

    It returns the exit status, what was printed, and the request.
    """

    def run(rows, *arguments):
        requests = []

        def tell(request):
            requests.append(request)
            return iter(rows)

        monkeypatch.setattr(check, "_run", tell)
        status = main(["check", *arguments])
        return status, capsys.readouterr().out, requests[0]

    return run


def test_the_report_has_a_line_for_each_check(run):
    """Reasons are below it, each once with its cases, and a summary at the end."""
    status, out, _ = run(ROWS, "ema")
    assert 1 == status
    assert out.splitlines()[1:] == [
        "    passed     test_a",
        "    FAILED     test_b, 6 cases",
        "        2, 3, 4 and 2 more: it differs",
        "    opted out  test_c",
        "        it has no state",
        "    unclear    test_d",
        "        it was not called",
        "",
        "1 passed, 1 opted out, 1 unclear, 1 failed",
    ]


def test_json_has_a_row_for_each_check(run):
    """It sums up its cases, and holds those that have not passed."""
    _, out, _ = run(ROWS, "ema", "--json")
    checks = json.loads(out)
    assert [1, 6, 1, 1] == [each["n_cases"] for each in checks]
    assert [0.5, 3.0, 0.5, 0.5] == [each["seconds"] for each in checks]
    assert ROWS[2:7] == checks[1]["problems"]


@pytest.mark.parametrize(
    ("rows", "message", "color"),
    [
        (ROWS, "1 passed, 1 opted out, 1 unclear, 1 failed", "red"),
        (ROWS[:1], "1 passed", "brightgreen"),
    ],
)
def test_a_badge_is_an_endpoint_of_shields(run, rows, message, color):
    """It has the summary, and a colour that says whether something failed."""
    status, out, _ = run(rows, "ema", "--badge")
    assert int(color == "red") == status
    expected = {"schemaVersion": 1, "label": "ttl check", "message": message, "color": color}
    assert expected == json.loads(out)


def test_configuration_is_json_or_text(run):
    """Values that are JSON are read as such, others are text; company is named or configured."""
    settings = ["decay=0.5", "path=a=b", "sizes=[1, 2]", 'text="1"', "empty="]
    options = [part for setting in settings for part in ("--config", setting)]
    options += ["--with", "metrics", "--with", 'swa={"start": 2}']
    _, _, request = run(ROWS, "ema", *options, "--time-limit", "3")
    assert request == {
        "components": [COMPONENT],
        "config": {"decay": 0.5, "path": "a=b", "sizes": [1, 2], "text": "1", "empty": ""},
        "company": ["metrics", {"swa": {"start": 2}}],
        "seconds": 3.0,
    }


def test_a_distribution_is_all_its_components(run):
    """A name that ends in a slash is that of a distribution, in any spelling."""
    _, _, request = run([], "TTL_run/")
    assert ["ttl-run/run-folder", "ttl-run/seed"] == request["components"]
