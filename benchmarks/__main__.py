"""The command of the peer benchmark.

`python -m benchmarks` measures all and prints its section of the page of
costs; `--write` puts it there.
`--workloads step --contenders ignite --rounds 3` takes seconds.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.agreement import check_same_work
from benchmarks.contender import Contender
from benchmarks.contenders import BY_HAND, OURS, load_peers
from benchmarks.measuring import measure, measure_all
from benchmarks.page import Results, insert_section, section
from benchmarks.workloads import WORKLOADS

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "cost.md"


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument(
        "--contenders", nargs="+", metavar="TEXT", help="only those whose names contain a text"
    )
    parser.add_argument("--rounds", type=int, default=40, help="at most, default %(default)s")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="no round begins after, default %(default)s"
    )
    parser.add_argument("--write", action="store_true", help=f"write into {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds is at least 2: there are no quartiles of one")
    if arguments.write and (arguments.contenders or len(arguments.workloads) < len(WORKLOADS)):
        parser.error("--write takes all workloads and contenders: it replaces the whole section")
    return arguments


def selected(contenders: Iterable[Contender], texts: Sequence[str] | None) -> list[Contender]:
    """Return the contenders whose names contain one of the texts; all if there are none."""
    return [
        contender
        for contender in contenders
        if texts is None or any(text.lower() in contender.name.lower() for text in texts)
    ]


def main() -> None:
    """Compare, measure, and print or write what was found."""
    arguments = parse_arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of peers about themselves, and of loops without a step
    all_peers, missing = load_peers()
    ours, peers = (selected(group, arguments.contenders) for group in (OURS, all_peers))
    contenders = [BY_HAND, *ours, *peers]
    workloads = [WORKLOADS[name] for name in arguments.workloads]

    differences = {}
    for workload in workloads:  # what is made once in a process is made here, too
        for contender in contenders:
            if workload.name not in contender.runs:
                continue
            if workload.trains:
                difference = check_same_work(contender, BY_HAND, workload)
                differences[workload.name, contender.name] = difference
            else:
                measure(contender, workload)
    gc.collect()
    gc.freeze()  # the modules of all peers would make each collection slow
    samples = measure_all(contenders, workloads, arguments.rounds, 60 * arguments.minutes)

    text = section(Results(BY_HAND, ours, peers, samples, differences, missing))
    print(text)
    if arguments.write:
        PAGE.write_text(insert_section(PAGE.read_text(), text))


if __name__ == "__main__":
    main()
