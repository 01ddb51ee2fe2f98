"""Which series are drawn together: one chart a metric, with a line for each phase."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PHASES = ("train", "valid", "test", "predict")
SECTIONS = ("Metrics", "Gradients and learning rates", "Other values")

_OF_OPTIMIZATION = re.compile(
    r"(^|[-_/. ])(lr|learning|grads?|gradients?|norms?|updates?)($|[-_/. ])"
)


class Name(NamedTuple):
    """A full name in its parts: "valid/easy/accuracy/top5".

    Attributes:
        metric: "accuracy".
        phase: "valid"; "" for what is logged outside epochs.
        data_name: "easy", if that is the name of a data set, or "".
        part: "top5", or "".
    """

    metric: str
    phase: str
    data_name: str
    part: str

    @property
    def label(self) -> str:
        """What tells it from the other names of its metric, as "valid easy top5"."""
        return " ".join(filter(None, (self.phase, self.data_name, self.part)))


def split_name(full_name: str, data_names: Collection[str]) -> Name:
    """Return a full name in its parts.

    Args:
        full_name: the name, as it was logged.
        data_names: the names of validation sets.

    Example:
        >>> split_name("valid/easy/loss", ["easy"])
        Name(metric='loss', phase='valid', data_name='easy', part='')
        >>> split_name("train/grad-norm/head.weight", [])
        Name(metric='grad-norm', phase='train', data_name='', part='head.weight')
    """
    phase, _, rest = full_name.partition("/")
    if phase not in PHASES or not rest:
        phase, rest = "", full_name
    found = [each for each in data_names if rest.startswith(f"{each}/")] if phase else []
    data_name = max(found, key=len, default="")
    metric, _, part = rest[len(data_name) + 1 if data_name else 0 :].partition("/")
    return Name(metric, phase, data_name, part)


def charts_of(series: Sequence[Mapping[str, Any]], data_names: Collection[str]) -> list[Any]:
    """Return the charts of a run, as data that JSON can hold.

    Args:
        series: the series, as the page holds them.
        data_names: the names of validation sets.

    Returns:
        For each chart its title, its section, and its lines: the number of the series, a label,
        the number of a color, and whether it is in the background, behind means of epochs.
    """
    names = [split_name(one["name"], data_names) for one in series]
    parts: dict[str, set[str]] = {}
    for name in names:
        parts.setdefault(name.metric, set()).add(name.part)
    charts: dict[str, dict[str, Any]] = {}
    for i, (one, name) in enumerate(zip(series, names, strict=True)):
        if name.part and len(parts[name.metric]) == 1:  # as of "samples/s", which is one name
            name = name._replace(metric=f"{name.metric}/{name.part}", part="")
        chart = charts.setdefault(name.metric, {"title": name.metric, "lines": []})
        chart["lines"].append({"series": i, "label": name.label, "level": one["level"]})
    for chart in charts.values():
        _distinguish(chart["lines"])
        levels = {series[line["series"]]["level"] for line in chart["lines"]}
        chart["section"] = section_of(chart["title"], "epoch" in levels)
    return sorted(
        charts.values(),
        key=lambda chart: (SECTIONS.index(chart["section"]), chart["title"] != "loss"),
    )


def numbered(charts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return charts with their numbers and those of their sections, as templates use them."""
    return [
        {**chart, "number": i, "section_number": SECTIONS.index(chart["section"])}
        for i, chart in enumerate(charts)
    ]


def section_of(metric: str, is_of_epochs: bool) -> str:
    """Return in which section of a page the chart of a metric is.

    Args:
        metric: the name of the metric.
        is_of_epochs: whether it is logged for whole epochs.
    """
    if _OF_OPTIMIZATION.search(metric.lower()):
        return SECTIONS[1]
    return SECTIONS[0] if is_of_epochs or "loss" in metric.lower() else SECTIONS[2]


def _distinguish(lines: Sequence[dict[str, Any]]) -> None:
    """Choose the colors of a chart's lines, and which are in the background.

    The first label of each phase has the same color in every chart.
    """
    of_epochs = {line["label"] for line in lines if line["level"] == "epoch"}
    colors: dict[str, int] = {}
    n_others = 0
    for label in dict.fromkeys(line["label"] for line in lines):
        phase = label.partition(" ")[0]
        color = PHASES.index(phase) if phase in PHASES else 0
        if color in colors.values():
            color, n_others = len(PHASES) + n_others, n_others + 1
        colors[label] = color
    for line in lines:
        line["color"] = colors[line["label"]]
        line["is_background"] = line.pop("level") == "batch" and line["label"] in of_epochs
        if line["is_background"]:
            line["label"] = f"{line['label']}, batches".lstrip(", ")
