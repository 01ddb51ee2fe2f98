"""The command `ttl report`: several runs in one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ttl_report.comparison import render_comparison
from ttl_report.component import FILE
from ttl_report.page import PageError, read, write


def command(parser: argparse.ArgumentParser) -> None:
    """Compare runs on one page.

    Its exit status is 0, 1 if the page cannot be written, 2 if there is no report to compare.

    Args:
        parser: the parser.
    """
    parser.description = (
        "Compare runs by the reports in their folders, which the component 'report' has written: "
        "curves together, best values, and what differs."
    )
    parser.epilog = (
        "Folders without a report are named and left out. The exit status is 1 if the page cannot "
        "be written, 2 if there is no report."
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        type=Path,
        nargs="+",
        help="the folder of a run, or its report.html",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("comparison.html"),
        help="the page (default: %(default)s)",
    )
    parser.set_defaults(run=_compare)


def _compare(given: argparse.Namespace) -> int:
    """Write a page that compares runs, print where it is, and return the exit status."""
    documents = {}
    for run in given.runs:
        path = run / FILE if run.is_dir() else run
        try:
            documents[path] = read(path)
        except (OSError, PageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"ttl: {path} is left out: {reason}", file=sys.stderr)
    if not documents:
        print("ttl: no run has a report: enable the component 'report'", file=sys.stderr)
        return 2
    try:
        write(given.output, render_comparison(documents, given.output))
    except OSError as error:
        print(f"ttl: the comparison cannot be written: {error}", file=sys.stderr)
        return 1
    print(f"{given.output} compares {len(documents)} run{'s' * (len(documents) != 1)}")
    return 0
