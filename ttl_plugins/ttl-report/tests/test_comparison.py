"""`ttl report`: several runs in one page."""

import re

import pytest
from ttl_report.comparison import differences, distinct_names, joint_charts

from ttl_core import use
from ttl_core.cli import main


@pytest.fixture
def runs(make_loop, tmp_path):
    """Provide the folders of three runs: two that differ in a setting, and a longer one."""
    for folder, patience, n_epochs in (("a", 3, 2), ("b", 4, 2), ("c", 4, 3)):
        stopping = use("early-stopping", monitor="valid/loss", patience=patience)
        make_loop(stopping, folder=folder).train(n_epochs)
    return [tmp_path / folder for folder in "abc"]


@pytest.fixture
def compare(tmp_path, capsys):
    """Return a function that compares runs: it returns the status, the page, and what is said."""

    def run(*folders):
        output = tmp_path / "out" / "compared.html"
        status = main(["report", *map(str, folders), "-o", str(output)])
        captured = capsys.readouterr()
        return status, output.read_text() if output.exists() else None, captured.out + captured.err

    return run


def table(page, section):
    """Return the table of a section as rows of texts."""
    body = re.search(rf'<section aria-labelledby="{section}">(.*?)</section>', page, re.DOTALL)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]*>", " ", cell).strip() for cell in row] for row in cells]


def test_runs_are_compared_by_their_best_values(runs, compare):
    """A row for each run: how it ended, its length, and the best or last value of each metric."""
    status, page, said = compare(*runs)
    assert 0 == status
    assert said.endswith("compared.html compares 3 runs\n")
    head, *rows = table(page, "runs")
    assert ["valid/loss lowest", "train/loss lowest"] == head[5:]
    assert [
        ["a", "Complete", "2", "6", "13", "13"],
        ["b", "Complete", "2", "6", "13", "13"],
        ["c", "Complete", "3", "9", "13", "13"],
    ] == [[*row[:2], *row[3:]] for row in rows]
    assert '<a class="plain" href="../a/report.html"' in page


def test_what_differs_is_shown(runs, compare):
    """Settings that are the same in all runs are left out, and so are folders."""
    assert [
        ["Setting", "a", "b", "c"],
        ["early-stopping patience", "3", "4", "4"],
    ] == table(compare(*runs)[1], "differences")


def test_objects_are_shown_by_their_names():
    """In full only where the name is the same in several modules."""
    runs = [
        {
            "components": [
                {
                    "name": "x",
                    "distribution": "d",
                    "version": "1",
                    "enabled": True,
                    "config": config,
                }
            ],
            "environment": {},
        }
        for config in (
            {"loss": {"$object": "torch.nn.L1Loss"}, "opt": {"$ref": "torch.optim:SGD", "lr": 0.1}},
            {"loss": {"$object": "mine.L1Loss"}, "opt": {"$ref": "torch.optim:Adam", "lr": 0.1}},
        )
    ]
    assert [
        ("x loss", ['{"$object": "torch.nn.L1Loss"}', '{"$object": "mine.L1Loss"}']),
        ("x opt", ["SGD(lr=0.1)", "Adam(lr=0.1)"]),
    ] == differences(runs)


def test_runs_that_differ_in_nothing(runs, compare):
    """The page says so."""
    assert "Components, configuration, versions and machine are the same." in compare(*runs[1:])[1]


def test_folders_without_a_report_are_left_out(runs, compare, tmp_path):
    """They are named with the reason; without any report there is no page."""
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged.html"
    damaged.write_text("<html>")
    status, _, said = compare(tmp_path / "empty", damaged, runs[0])
    assert 0 == status
    assert [
        f"ttl: {tmp_path}/empty/report.html is left out: No such file or directory",
        f"ttl: {damaged} is left out: it is no report of ttl-report, or it is damaged",
    ] == sorted(said.splitlines()[1:], reverse=True)
    status, _, said = compare(tmp_path / "empty")
    assert 2 == status
    assert said.endswith("no run has a report: enable the component 'report'\n")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            '"format":1',
            '"format":2',
            "it has format 2, but this version of ttl-report reads format 1",
        ),
        ('"kind":"run"', '"kind":"comparison"', "it is a comparison: give the folders of its runs"),
    ],
)
def test_pages_of_another_kind_are_refused(runs, compare, old, new, reason):
    """Those of later versions, and comparisons."""
    path = runs[0] / "report.html"
    path.write_text(path.read_text().replace(old, new))
    assert reason in compare(runs[0])[2]


def test_names_of_runs_tell_them_apart(tmp_path):
    """They are as short as possible."""
    paths = [tmp_path / name / "report.html" for name in ("x/1", "x/2", "y/1")]
    assert ["1", "2"] == distinct_names(paths[:2])
    assert ["x/1", "x/2", "y/1"] == distinct_names(paths)


def test_the_page_of_many_runs_stays_small():
    """Each has fewer points then."""
    steps = list(range(2000))
    one = {"level": "batch", "steps": steps, "values": steps, "last": 0, "lowest": None}
    runs = {f"run {i}": {"train/loss": one | {"non_finite": []}} for i in range(60)}
    series, (chart,) = joint_charts(runs)
    assert 60 == len(chart["lines"])
    assert sum(len(each["steps"]) for each in series) <= 100_000


def test_hostile_names_are_no_markup(make_loop, compare, tmp_path):
    """Neither those of metrics nor those of folders."""
    hostile = "<img src=x onerror=alert(1)>"
    make_loop(folder=hostile).train(n_epochs=1)
    assert "<img" not in compare(tmp_path / hostile)[1]
