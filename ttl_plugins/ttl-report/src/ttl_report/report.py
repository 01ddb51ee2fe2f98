"""The report of one run: what its page holds, and the rows of its tables."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ttl_core import likely_mode
from ttl_report.charts import charts_of, numbered
from ttl_report.page import FORMAT, render
from ttl_report.pictures import Picture
from ttl_report.series import Series

_MAX_BUCKETS = 60_000  # of all series of a page, which bounds its size to a few megabytes
_MAX_HIGHLIGHTS = 4


def make_document(
    name: str,
    *,
    runs: Sequence[Mapping[str, Any]],
    position: Mapping[str, int],
    series: Iterable[Series],
    data_names: Collection[str],
    phases: Mapping[str, Mapping[str, Any]],
    components: Sequence[Mapping[str, Any]],
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Return what the page of a run holds, as data that JSON can hold.

    Args:
        name: the name of the run.
        runs: the runs of the loop, as of `Runs`.
        position: the numbers of epochs and of optimization steps so far.
        series: what was logged.
        data_names: the names of validation sets.
        phases: the time of each phase, as of `PhaseTimes`.
        components: what `loop.manifest()` returns.
        environment: labels and texts about the machine and its software.
    """
    series = list(series)
    limit = _MAX_BUCKETS // max(len(series), 1)
    rows = [series_as_json(one, limit) for one in series]
    return {
        "format": FORMAT,
        "kind": "run",
        "name": name,
        "updated": time.time(),
        "runs": runs,
        "position": position,
        "series": rows,
        "charts": charts_of(rows, data_names),
        "phases": phases,
        "components": components,
        "environment": environment,
    }


def series_as_json(series: Series, limit: int) -> dict[str, Any]:
    """Return a series as data that JSON can hold.

    Args:
        series: the series.
        limit: how many buckets a page has room for.
    """
    columns = series.columns(limit)
    return {
        "name": series.name,
        "level": series.level,
        "count": series.count,
        "last": _as_json(series.last),
        "lowest": series.lowest,
        "highest": series.highest,
        "n_non_finite": series.n_non_finite,
        "non_finite": [(step, str(value)) for step, value in series.non_finite],
        **columns,
    }


def _as_json(value: float) -> float | str:
    return value if value - value == 0 else str(value)  # "nan", "inf": JSON has no such numbers


def render_report(document: Mapping[str, Any], pictures: Sequence[Picture] = ()) -> str:
    """Return the page of a run.

    Args:
        document: what it holds.
        pictures: those that it shows too.
    """
    rows = values_table(document)
    return render(
        "report.html",
        document,
        summary=summary_of(document),
        values=rows,
        highlights=[row for row in rows if row["best"]][:_MAX_HIGHLIGHTS],
        charts=numbered(document["charts"]),
        non_finite=[one for one in document["series"] if one["n_non_finite"]],
        phases=phases_table(document),
        pictures=pictures,
    )


def summary_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a run stands: the status to show, of which of several runs, why, and its times.

    A test after training is a run too; where it was complete, the training says how it ended.
    """
    runs = document["runs"]
    shown = runs[-1]
    if shown["status"] == "complete":
        shown = next((run for run in reversed(runs) if run["phase"] == "train"), shown)
    ends = [run["ended"] or document["updated"] for run in runs[-1:]]
    known = sum(run["ended"] - run["started"] for run in runs if run["ended"])
    running = 0.0 if runs[-1]["ended"] else ends[0] - runs[-1]["started"]
    return {
        "status": shown["status"],
        "phase": shown["phase"] if len(runs) > 1 else "",
        "reason": shown["reason"],
        "started": runs[0]["started"],
        "seconds": known + running,
    }


def values_table(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each name that was logged: of its epochs if it was logged for those.

    The rows of evaluations come first, as they are what a run is judged by.
    """
    series = document["series"]
    of_epochs = {one["name"] for one in series if one["level"] == "epoch"}
    rows = []
    for one in series:
        if one["level"] == "batch" and one["name"] in of_epochs:
            continue
        which = {"min": "lowest", "max": "highest", None: None}[likely_mode(one["name"])]
        rows.append({**one, "best": which and one[which], "which": which})
    return sorted(rows, key=lambda row: (row["level"] != "epoch", row["name"].startswith("train/")))


def phases_table(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each phase with its times, and its share of all of them."""
    phases = document["phases"]
    total = sum(phase["seconds"] for phase in phases.values()) or 1.0
    return [
        {
            "phase": name,
            **phase,
            "per_epoch": phase["seconds"] / phase["epochs"] if phase["epochs"] else None,
            "per_batch": phase["seconds"] / phase["batches"] if phase["batches"] else None,
            "share": phase["seconds"] / total,
        }
        for name, phase in phases.items()
    ]
