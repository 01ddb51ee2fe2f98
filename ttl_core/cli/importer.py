"""Importing what is installed in processes of their own, so that a crash or a hang is a result.

`python -P -m ttl_core.cli.importer SECONDS KIND:DISTRIBUTION/NAME...` imports torch once and forks
a process for each distribution; where processes cannot be forked, it is run for each name.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from ttl_core import discovery
from ttl_core.cli.text import signature, summary
from ttl_core.discovery import InstalledComponent, Kind
from ttl_core.errors import TTLError
from ttl_core.processes import CAN_FORK, call_forked


class Imported(NamedTuple):
    """What importing an entry point has shown.

    Attributes:
        failure: how it failed; None if it did not.
        points: the callback points that it provides: signature and summary of each.
    """

    failure: str | None
    points: Sequence[tuple[str, str]] = ()


def import_all(
    entries: Sequence[InstalledComponent], seconds: float
) -> dict[InstalledComponent, Imported]:
    """Import entry points in other processes.

    Args:
        entries: the entry points.
        seconds: how long one import may take.
    """
    names = {_full_name(entry): entry for entry in entries}
    found: dict[InstalledComponent, Imported] = {}
    for batch in [list(names)] if CAN_FORK else [[name] for name in names]:
        # -P: a module in the current folder is not the one that is installed
        command = [sys.executable, "-P", "-m", __name__, str(seconds), *batch]
        done = subprocess.run(command, capture_output=True, text=True)
        for name, *imported in map(json.loads, done.stdout.splitlines()):
            found[names[name]] = Imported(*imported)
        for name in batch:
            failure = f"importing it ended the process with status {done.returncode}"
            found.setdefault(names[name], Imported(failure))
    return found


def _full_name(entry: InstalledComponent) -> str:
    return f"{entry.kind}:{entry.distribution}/{entry.name}"


def main(arguments: Sequence[str]) -> None:
    """Import entry points, and print a line of JSON for each, with its name and what was found.

    Args:
        arguments: the seconds that one import may take, and the full names.
    """
    seconds, *names = arguments
    report = os.fdopen(os.dup(1), "w")  # what is imported may print, or close standard output
    os.dup2(2, 1)
    if CAN_FORK and any(name.startswith("component:") for name in names):
        with contextlib.suppress(Exception):  # importing a component reports it
            importlib.import_module("torch")  # which every component imports, and takes a second
    names.sort(key=_distribution)
    for _, several in itertools.groupby(names, key=_distribution):
        for name, imported in _import_several(list(several), float(seconds)):
            print(json.dumps([name, *imported]), file=report, flush=True)


def _distribution(name: str) -> str:
    return name.partition(":")[2].partition("/")[0]


def _import_several(names: Sequence[str], seconds: float) -> Iterator[tuple[str, Imported]]:
    """Import the entry points of a distribution in one process; in one for each if one fails."""
    if len(names) > 1:
        together = call_forked(lambda: [_import(name) for name in names], seconds)
        found = [Imported(*imported) for imported in together.value or ()]
        if found and not any(imported.failure for imported in found):
            yield from zip(names, found, strict=True)
            return
    for name in names:
        alone = call_forked(partial(_import, name), seconds)
        failure = f"importing it {alone.failure}"
        yield name, Imported(*alone.value) if alone.value else Imported(failure)


def _import(name: str) -> Imported:
    kind, _, plugin = name.partition(":")
    try:
        origin = discovery.find(plugin, cast(Kind, kind))
        factory = discovery.load(origin)
        return Imported(None, provided_by(factory, origin) if kind == "component" else ())
    except TTLError as error:
        return Imported(getattr(error, "reason", "") or str(error))


def provided_by(factory: Any, origin: InstalledComponent) -> list[tuple[str, str]]:
    """Return the callback points that a component class provides: signature and summary of each.

    Args:
        factory: what the entry point names.
        origin: where it is installed.

    Raises:
        ComponentRejectedError: one is not possible.
    """
    from ttl_core.hooks.provided_points import provided_points

    points = provided_points(factory, origin.name, f"component {origin}")
    found = [getattr(factory.hookspecs, point) for point in points]
    return [(signature(spec), summary(spec)) for spec in found]


if __name__ == "__main__":
    main(sys.argv[1:])
