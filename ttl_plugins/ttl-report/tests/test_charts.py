"""Which series share a chart, and what tells its lines apart."""

import pytest
from ttl_report.charts import charts_of


def charts(*names, data_names=()):
    """Return the charts of series: the labels of their lines by title, and all lines.

    Names that begin with "*" are logged for batches.
    """
    series = [
        {"name": name.removeprefix("*"), "level": "batch" if name[0] == "*" else "epoch"}
        for name in names
    ]
    found = charts_of(series, data_names)
    return {chart["title"]: [line["label"] for line in chart["lines"]] for chart in found}, found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train/loss", "valid/loss"], {"loss": ["train", "valid"]}),
        (["valid/a/loss", "valid/b/loss"], {"loss": ["valid a", "valid b"]}),
        (["*train/norm/x", "*train/norm/y.z"], {"norm": ["train x", "train y.z"]}),
        (["*train/samples/s"], {"samples/s": ["train"]}),
        (["*train/samples/s", "valid/samples/s"], {"samples/s": ["train", "valid"]}),
        (["*train/loss", "train/loss"], {"loss": ["train, batches", "train"]}),
        (["epochs", "train"], {"epochs": [""], "train": [""]}),
    ],
    ids=str,
)
def test_phases_sets_and_parts_of_a_metric_share_a_chart(names, expected):
    """One chart a metric; a unit behind a slash is part of its name."""
    assert expected == charts(*names, data_names=["a", "b"])[0]


def test_the_loss_is_first_and_what_is_logged_for_batches_only_last():
    """Gradients and learning rates have a section of their own."""
    names = ["*train/speed", "*train/grad-norm", "valid/accuracy", "valid/loss", "*train/lr"]
    sections = {chart["title"]: chart["section"] for chart in charts(*names)[1]}
    optimization = "Gradients and learning rates"
    assert [
        ("loss", "Metrics"),
        ("accuracy", "Metrics"),
        ("grad-norm", optimization),
        ("lr", optimization),
        ("speed", "Other values"),
    ] == list(sections.items())


def test_a_phase_has_the_same_color_in_every_chart():
    """Further lines of a phase have colors that no phase has."""
    _, (loss, accuracy) = charts(
        "*train/loss", "train/loss", "valid/a/loss", "valid/b/loss", "valid/a/acc", data_names="ab"
    )
    assert [0, 0, 1, 4] == [line["color"] for line in loss["lines"]]
    assert [1] == [line["color"] for line in accuracy["lines"]]


def test_values_of_batches_are_behind_the_means_of_their_epochs():
    """Where there are no means, they are what is to be seen."""
    _, (loss, norm) = charts("*train/loss", "train/loss", "*train/grad-norm")
    assert [True, False] == [line["is_background"] for line in loss["lines"]]
    assert [False] == [line["is_background"] for line in norm["lines"]]
