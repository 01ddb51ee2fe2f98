"""The section about peers of the page of costs: tables and what has to be said about them."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.contender import Contender
from benchmarks.measuring import Sample, Samples
from benchmarks.workloads import ROWS, Row

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"


@dataclass(frozen=True)
class Spread:
    """The middle of what several rounds measured.

    Attributes:
        median: the median.
        low: the first quartile.
        high: the third quartile.
    """

    median: float
    low: float
    high: float

    def overlaps(self, other: Spread) -> bool:
        """Return whether the interquartile ranges have something in common."""
        return self.low <= other.high and other.low <= self.high


def spread_of(values: Sequence[float]) -> Spread:
    """Return the middle of some values."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


FIGURES: Mapping[str, Callable[[Sample, Sample], float]] = {
    "batch, µs": lambda sample, by_hand: (sample.batch - by_hand.batch) * 1e6,
    "batch": lambda sample, by_hand: sample.batch / by_hand.batch,
    "run": lambda sample, by_hand: sample.run / by_hand.run,
}


@dataclass(frozen=True)
class Results:
    """What a benchmark found.

    Attributes:
        by_hand: the hand-written loop.
        ours: the contenders of ttl.
        peers: the other libraries.
        samples: what was measured.
        differences: the largest relative difference from the results of the hand-written loop, by
            workload and contender.
        missing: peers that do not work here, and why.
    """

    by_hand: Contender
    ours: Sequence[Contender]
    peers: Sequence[Contender]
    samples: Samples
    differences: Mapping[tuple[str, str], float]
    missing: Mapping[str, str]

    @property
    def contenders(self) -> list[Contender]:
        """All contenders, in the order of the table."""
        return [self.by_hand, *self.ours, *self.peers]

    @property
    def rows(self) -> list[Row]:
        """The rows that were measured."""
        return [row for row in ROWS if (row.workload, self.by_hand.name) in self.samples]

    @property
    def n_rounds(self) -> int:
        """The number of rounds."""
        return len(next(iter(self.samples.values())))

    def spread(self, row: Row, contender: Contender) -> Spread | None:
        """Return a figure of a contender against the hand-written loop of the same round."""
        samples = self.samples.get((row.workload, contender.name))
        if samples is None:
            return None
        by_hand = self.samples[row.workload, self.by_hand.name]
        figures = [FIGURES[row.figure](*pair) for pair in zip(samples, by_hand, strict=True)]
        return spread_of(figures)


def number(value: float, *, is_ratio: bool) -> str:
    """Return a figure as text, with as many digits as mean something."""
    if is_ratio:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}"


def cell(results: Results, row: Row, contender: Contender) -> str:
    """Return a cell of the table: the median, and the quartiles."""
    if contender is results.by_hand:
        samples = results.samples[row.workload, contender.name]
        if not row.is_ratio:
            return "0"
        if row.figure == "run":
            spread = spread_of([sample.run for sample in samples])
            return f"1 = {spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}] s"
        spread = spread_of([sample.batch * 1e6 for sample in samples])
        return f"1 = {spread.median:.0f} [{spread.low:.0f}, {spread.high:.0f}] µs"
    found = results.spread(row, contender)
    if found is None:
        return "-"
    median, low, high = (
        number(value, is_ratio=row.is_ratio) for value in (found.median, found.low, found.high)
    )
    return f"{median} [{low}, {high}]"


def table(results: Results) -> str:
    """Return the table of all figures."""
    lines = [
        "| | points | " + " | ".join(row.title for row in results.rows) + " |",
        "|---" * (len(results.rows) + 2) + "|",
    ]
    for contender in results.contenders:
        cells = [cell(results, row, contender) for row in results.rows]
        cells = [contender.name, str(contender.n_points or ""), *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rivals(results: Results, row: Row, ours: Contender) -> list[str]:
    """Return what has to be said where a contender of ttl is not ahead of every peer."""
    own = results.spread(row, ours)
    if own is None:
        return []
    ahead = [
        (spread, peer)
        for peer in results.peers
        if (spread := results.spread(row, peer)) is not None and spread.median <= own.median
    ]
    if not ahead:
        return []
    ahead.sort(key=lambda item: item[0].median)
    texts = [
        f"{peer.name} with {number(spread.median, is_ratio=row.is_ratio)}"
        + (" (their ranges overlap)" if spread.overlaps(own) else "")
        for spread, peer in ahead
    ]
    median = number(own.median, is_ratio=row.is_ratio)
    line = f"- {row.sentence}: {ours.name} with {median} is not ahead of {', '.join(texts)}."
    return [_filled(line, "  ")]


def verdict(results: Results) -> str:
    """Return where ttl is not first."""
    lines = [
        line for row in results.rows for ours in results.ours for line in rivals(results, row, ours)
    ]
    if not lines:
        return "In this run ttl is ahead of every peer in every column."
    return "Where ttl is not ahead of every peer in this run:\n\n" + "\n".join(lines)


def setups(results: Results) -> str:
    """Return how each contender is set up, and why figures are missing."""
    lines = []
    for contender in results.contenders:
        versions = ", ".join(f"{name} {version(name)}" for name in contender.distributions)
        line = f"- **{contender.name}**" + (f" ({versions})" if versions else "")
        line += f": {contender.lean}"
        for name, reason in contender.lacks.items():
            line += f" No figure for {_title(name)}: {reason}."
        lines.append(line)
    lines += [f"- **{name}** is not measured: {why}." for name, why in results.missing.items()]
    return "\n".join(_filled(line, "  ") for line in lines)


def _title(workload: str) -> str:
    sentence = next(row.sentence for row in ROWS if row.workload == workload)
    return sentence[0].lower() + sentence[1:]


def same_work(results: Results) -> str:
    """Return how far contenders arrive at the results of the hand-written loop."""
    inexact: dict[str, float] = {}
    for (_, name), difference in results.differences.items():
        if difference > 1e-6:
            inexact[name] = max(difference, inexact.get(name, 0.0))
    text = (
        "The same work: losses, weights, metrics and averages are those of the hand-written loop "
        "to a millionth"
    )
    if not inexact:
        return _filled(text + ".")
    several = ", ".join(f"{name} ({value:.0e})" for name, value in inexact.items())
    return _filled(f"{text}, but for {several}.")


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 118, subsequent_indent=indent, break_on_hyphens=False)


def machine() -> str:
    """Return a processor's model and the number of cores."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def section(results: Results) -> str:
    """Return the whole section."""
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    what = f"{datetime.date.today():%Y-%m-%d}; {machine()}; {versions}; {results.n_rounds} rounds."
    parts = [what, table(results), verdict(results), same_work(results), setups(results)]
    return "\n" + "\n\n".join(parts) + "\n\n"


def insert_section(page: str, text: str) -> str:
    """Return a page with a text between the two markers, in place of what was there.

    Raises:
        ValueError: the page does not have both markers.
    """
    before, found_begin, rest = page.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise ValueError(f"the page has no section between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}{END}{after}"
