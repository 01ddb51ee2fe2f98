"""The command `ttl selftest`: kills a script at random points, and looks whether it resumes."""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import sys
import tempfile
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

import ttl_checkpoint
from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.probe import DIGEST, FACTS, OWNED, STEPS, Kill, Probe

_N_SHOWN = 5

Facts = dict[str, str]
Place = tuple[int, int, int, str]
"""The number of the saver, the epoch, the step, and what happened there."""


def command(parser: argparse.ArgumentParser) -> None:
    """Kill and resume a script at random points, and name what then differs.

    Its exit status is 0, 1 if a resumed run differs, 2 if the script cannot be tested.

    Args:
        parser: the parser.
    """
    parser.description = (
        "Run a script that trains with the component 'checkpoint' twice to its end, and once more "
        "with kill -9 at random points, after each of which it is started again; then compare "
        "what was saved, to the bit, and name what differs and its owner."
    )
    parser.epilog = (
        "Each run has a folder of its own as the current one, which is removed. The exit status "
        "is 1 if the resumed run differs, 2 if the script cannot be tested."
    )
    parser.add_argument("script", type=Path, help="the script")
    parser.add_argument("arguments", nargs="*", help="its arguments, those with dashes after --")
    parser.add_argument(
        "--kills", type=int, default=3, help="how often to kill it (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of the points (default: %(default)s)"
    )
    parser.add_argument(
        "--link",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a file or folder that the script reads, to be in the current folder of each run",
    )
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    try:
        if not hasattr(os, "fork"):
            raise CheckpointError("selftest takes a system that can fork processes, as Linux")
        if not given.script.is_file():
            raise CheckpointError(f"there is no script {given.script}")
        script = Script(given.script.absolute(), given.arguments, given.link)
        with tempfile.TemporaryDirectory(prefix="ttl-selftest-") as root:
            # the first optimizer imports much of torch, which each run would do again
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0).zero_grad()
            return _test(script, Path(root), given.kills, random.Random(given.seed))
    except CheckpointError as error:
        print(f"selftest: {error}", file=sys.stderr)
        return 2


def _test(script: Script, root: Path, n_kills: int, numbers: random.Random) -> int:
    """Test a script, print what was found, and return the exit status."""
    whole = [script.run_to_end(root / name) for name in ("one", "two")]
    first, second = (run.facts for run in whole)
    unstable = {path for at in first for path in _differing(first[at], second.get(at, {}))}
    parts = sorted({json.loads(path)[0] for path in unstable})
    if "model" in parts:
        raise CheckpointError(
            "two runs that were not interrupted differ already, in "
            f"{_first_of(unstable, 'model')}. Seed all random numbers, as by the component 'seed', "
            "and see torch.use_deterministic_algorithms()"
        )
    steps = whole[0].steps
    print(f"{len(steps)} safe points, {len(first)} states, in {whole[0].seconds:.1f} s")
    chosen = sorted(numbers.sample(range(len(steps) - 1), min(n_kills, len(steps) - 1)))
    kills = []
    for i in chosen:  # somewhere before the next safe point
        saver, step, at = steps[i]
        kills.append(Kill(saver, step, numbers.random() * (steps[i + 1][2] - at)))
    killed = script.run_killed(root / "killed", kills).facts
    found = {p: _comparable(first[p], killed[p], unstable) for p in first if p in killed}
    for place, paths in found.items():
        if any(json.loads(path)[0] not in (OWNED, "components") for path in paths):
            _print_failure(first, killed, unstable, place, paths)
            return 1
    print(f"resumed to the same bits: {len(found)} states are those of a run without kills")
    others = {p for paths in found.values() for p in paths if json.loads(p)[0] == "components"}
    for what, which in (("without kills too", unstable), ("in its own state alone", others)):
        owners = sorted({_owner(path) for path in which if json.loads(path)[0] != OWNED})
        if owners:
            print(f"differs {what}: {', '.join(owners)}")
    return 0


def _comparable(expected: Facts, actual: Facts, unstable: Collection[str]) -> list[str]:
    return [path for path in _differing(expected, actual) if path not in unstable]


def _differing(expected: Facts, actual: Facts) -> list[str]:
    """Return the paths of what differs, in order."""
    paths = dict.fromkeys([*expected, *actual])
    return [path for path in paths if expected.get(path) != actual.get(path)]


def _first_of(paths: set[str], part: str) -> str:
    return min(_described(path) for path in paths if json.loads(path)[0] == part)


def _owner(path: str) -> str:
    part, *rest = json.loads(path)
    if part == OWNED:
        return str(rest[0])
    if part == "components":
        return f"component {rest[0]!r}"
    if part in ("variables", "hidden"):
        return f"the loop variable {rest[0]!r}"
    return f"the {part}" if part != "random" else "the global random numbers"


def _described(path: str) -> str:
    part, *rest = json.loads(path)
    names = rest[1:] if part in (OWNED, "components", "variables", "hidden") else rest
    kind = "attribute " if part == OWNED and rest[0].startswith("component") else ""
    return f"{_owner(path)}: {kind}{'.'.join(names)}" if names else _owner(path)


def _print_failure(
    first: Mapping[Place, Facts],
    killed: Mapping[Place, Facts],
    unstable: Collection[str],
    at: Place,
    paths: Sequence[str],
) -> None:
    """Print what was not restored, and what then differed.

    Args:
        first: the facts of a run without kills.
        killed: those of the one that was killed.
        unstable: what differs in any case.
        at: where the first difference was found.
        paths: what it consists of.
    """
    print(f"DIFFERS: the state of epoch {at[1]}, step {at[2]} is not that of a run without kills")
    with_state = {_owner(path) for path in first[at] if json.loads(path)[0] == "components"}
    for (saver, epoch, step, what), actual in killed.items():
        saved = first.get((saver, epoch, step, "saved"), {})
        if what == "resumed" and saved:
            lost = _comparable(saved, actual, unstable)
            lost = [path for path in lost if json.loads(path)[0] == OWNED]
            lost.sort(key=lambda path: _owner(path) in with_state)  # those without one are first
            title = f"not restored when it resumed at epoch {epoch}, step {step}"
            _print_values(title, lost, saved, actual)
    states = [path for path in paths if json.loads(path)[0] != OWNED]
    _print_values("different then", states, first[at], killed[at])
    print(
        "What training depends on has to be in a state: return it from state_dict() of its "
        "component, and restore it in load_state_dict()"
    )


def _print_values(title: str, paths: Sequence[str], expected: Facts, actual: Facts) -> None:
    if paths:
        print(f"  {title}:")
    for path in paths[:_N_SHOWN]:
        one, other = expected.get(path, "nothing"), actual.get(path, "nothing")
        values = f"{one} without kills, {other} resumed"
        if one.partition(DIGEST)[0] == other.partition(DIGEST)[0]:
            values = f"other values, {one.partition(DIGEST)[0]}"
        print(f"    {_described(path)}: {values}")
    if paths[_N_SHOWN:]:
        print(f"    and {len(paths) - _N_SHOWN} more")


class Run(NamedTuple):
    """What runs of a script in one folder came to.

    Attributes:
        seconds: how long the last one took.
        steps: the number of the saver, the step and the time of each safe point.
        facts: what there was at each save, and at the end, by where that was.
    """

    seconds: float
    steps: list[tuple[int, int, float]]
    facts: dict[Place, Facts]


class Script:
    """A script that is run in forks of this process.

    Args:
        path: its absolute path.
        arguments: its arguments.
        links: what it reads in the current folder.
    """

    def __init__(self, path: Path, arguments: Sequence[str], links: Sequence[Path]) -> None:
        self.path, self.arguments, self.links = path, arguments, links

    def run_to_end(self, folder: Path) -> Run:
        """Run it in a new folder, and return what it came to."""
        self._make(folder)
        begin = time.monotonic()
        self._start(folder, None)
        return self._read(folder, time.monotonic() - begin)

    def run_killed(self, folder: Path, kills: Sequence[Kill]) -> Run:
        """Run it in a new folder, kill it at each of some points, and run it to its end."""
        self._make(folder)
        for kill in kills:
            if self._start(folder, kill):
                print(f"killed after step {kill.step}")
        begin = time.monotonic()
        self._start(folder, None)
        return self._read(folder, time.monotonic() - begin)

    def _make(self, folder: Path) -> None:
        (folder / "work").mkdir(parents=True)
        for link in self.links:
            if not link.exists():
                raise CheckpointError(f"there is no {link} to link")
            (folder / "work" / link.name).symlink_to(link.absolute())

    def _start(self, folder: Path, kill: Kill | None) -> bool:
        """Run it once, and return whether it was killed."""
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            self._be_run(folder, kill)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code and not (kill is not None and code == -9):
            log = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
            raise CheckpointError(
                f"{self.path.name} has ended with status {code}:\n  " + "\n  ".join(log[-15:])
            )
        return bool(code)

    def _be_run(self, folder: Path, kill: Kill | None) -> NoReturn:
        """Run it in this process, which was forked for it, and end the process."""
        status = 1
        try:
            log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
                os.dup2(file, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(folder / "work")
            Probe.folder, Probe.kill = folder, kill
            ttl_checkpoint.Checkpoint = Probe  # type: ignore[misc]  # what its name stands for
            torch.seed()  # as in a new process: Python's numbers are seeded by the fork
            sys.argv = [str(self.path), *self.arguments]
            sys.path.insert(0, str(self.path.parent))
            runpy.run_path(str(self.path), run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _read(self, folder: Path, seconds: float) -> Run:
        try:
            lines = (folder / FACTS).read_text().splitlines()
            steps = (folder / STEPS).read_text().splitlines()
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.path.name} has saved nothing: put 'checkpoint' into the list of its loop, "
                "and let it train for more than one step"
            ) from None
        facts: dict[Place, Facts] = {}
        for record in map(json.loads, lines):
            facts[tuple(record["at"])] = record["facts"]
        return Run(seconds, [tuple(json.loads(line)) for line in steps], facts)
