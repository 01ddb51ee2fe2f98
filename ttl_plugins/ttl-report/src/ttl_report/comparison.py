"""The comparison of several runs: their best values, what differs, and their curves together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ttl_core import likely_mode
from ttl_report.buckets import thinned
from ttl_report.charts import numbered, section_of, split_name
from ttl_report.formats import UNKNOWN, setting
from ttl_report.page import FORMAT, render
from ttl_report.report import summary_of

_MAX_BUCKETS = 100_000  # of all series of a page, which bounds its size to a few megabytes
_UNCOMPARED = ("directory", "Working directory")  # they differ, and change nothing

Document = Mapping[str, Any]


def render_comparison(documents: Mapping[Path, Document], output: Path) -> str:
    """Return the page that compares runs.

    Args:
        documents: the documents of the runs, by the files of their reports.
        output: where the page will be, for links to the reports.
    """
    names = distinct_names(list(documents))
    runs = list(documents.values())
    chosen = {name: series_by_name(run) for name, run in zip(names, runs, strict=True)}
    series, charts = joint_charts(chosen)
    document = {
        "format": FORMAT,
        "kind": "comparison",
        "series": series,
        "charts": charts,
    }
    columns = value_columns(chosen.values())
    rows = [
        {
            "name": name,
            "color": i,
            "link": quote(Path(os.path.relpath(path, output.parent)).as_posix()),
            "summary": summary_of(run),
            "position": run["position"],
            "values": [column["values"][i] for column in columns],
        }
        for i, (name, (path, run)) in enumerate(zip(names, documents.items(), strict=True))
    ]
    return render(
        "comparison.html",
        document,
        rows=rows,
        columns=columns,
        differences=differences(runs),
        charts=numbered(charts),
    )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each run: as many of the last folders of its report as tell it apart.

    Args:
        paths: the files of the reports, all different.

    Example:
        >>> distinct_names([Path("a/x/report.html"), Path("b/x/report.html")])
        ['a/x', 'b/x']
    """
    folders = [path.absolute().parent.parts for path in paths]
    for n in range(1, max(map(len, folders))):
        names = ["/".join(folder[-n:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def series_by_name(document: Document) -> dict[str, Mapping[str, Any]]:
    """Return the series of a run by name: that of epochs, where there is one of batches too."""
    series = sorted(document["series"], key=lambda one: one["level"] == "epoch")
    found = {one["name"]: one for one in series}
    return {one["name"]: found[one["name"]] for one in document["series"]}  # in logged order


def joint_charts(
    runs: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the series of all runs, and a chart for each name with a line for each run.

    Args:
        runs: for each run its series by name.
    """
    names = list(dict.fromkeys(name for run in runs.values() for name in run))
    limit = _MAX_BUCKETS // max(sum(len(run) for run in runs.values()), 1)
    series: list[dict[str, Any]] = []
    charts = []
    for name in names:
        if all(len(run[name]["steps"]) < 2 for run in runs.values() if name in run):
            continue  # as of tests: the table has the value
        lines = []
        for color, (label, run) in enumerate(runs.items()):
            if name in run:
                lines.append(
                    {"series": len(series), "label": label, "color": color, "is_background": False}
                )
                kept = {key: run[name][key] for key in ("last", "lowest", "non_finite")}
                series.append(kept | thinned(run[name], limit))
        is_of_epochs = any(run[name]["level"] == "epoch" for run in runs.values() if name in run)
        section = section_of(split_name(name, []).metric, is_of_epochs)
        charts.append({"title": name, "section": section, "lines": lines})
    return series, sorted(charts, key=lambda chart: str(chart["title"]).startswith("train/"))


def value_columns(
    runs: Iterable[Mapping[str, Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    """Return the columns of the table of values: a name, which value is shown, and one a run.

    That is the best one where the name says which is better, and the last one else. What is logged
    for batches only has no column.
    """
    runs = list(runs)
    names = dict.fromkeys(
        name for run in runs for name, one in run.items() if one["level"] == "epoch"
    )
    columns = []
    for name in sorted(names, key=lambda name: name.startswith("train/")):
        mode = likely_mode(name)
        key = {"min": "lowest", "max": "highest", None: "last"}[mode]
        found = [run[name][key] if name in run else None for run in runs]
        values = [value[0] if isinstance(value, list) else value for value in found]
        known = [value for value in values if isinstance(value, int | float)]
        choose = {"min": min, "max": max}.get(mode or "")
        best = choose(known) if choose and known else None
        columns.append({"name": name, "which": key, "values": values, "best": best})
    return columns


def differences(runs: Sequence[Document]) -> list[tuple[str, list[str]]]:
    """Return the settings in which runs differ, each with the text of each run."""
    all_settings = [_settings(run) for run in runs]
    rows = []
    for label in dict.fromkeys(label for settings in all_settings for label in settings):
        values = [settings.get(label, UNKNOWN) for settings in all_settings]
        if any(value != values[0] for value in values):
            texts = list(map(setting, values))
            if len(set(texts)) == 1:  # objects of one name in several modules
                texts = list(map(json.dumps, values))
            rows.append((label, texts))
    return rows


def _settings(run: Document) -> dict[str, Any]:
    """Return what a run consisted of: a label and a value for each setting."""
    settings: dict[str, Any] = {}
    for component in run["components"]:
        name = component["name"]
        origin = f"{component['distribution'] or component['class']} {component['version'] or ''}"
        settings[name] = origin.strip() if component["enabled"] else "disabled"
        for key, value in component["config"].items():
            if key not in _UNCOMPARED:
                settings[f"{name} {key}"] = value
    return settings | {
        label: text for label, text in run["environment"].items() if label not in _UNCOMPARED
    }
