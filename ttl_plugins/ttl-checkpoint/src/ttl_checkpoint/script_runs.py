"""Runs of a script in forks of this process, which end or are killed, and what they recorded."""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

import ttl_checkpoint
from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.probe import FACTS, STEPS, Kill, Probe

Fact = tuple[str, ...]
"""Where a value is: the part of a state, CAPTURED or OWNED, and names from there on."""

Facts = dict[Fact, str]
Place = tuple[int, int, int, str]
"""The number of the saver, the epoch, the step, and what happened there."""


class Run(NamedTuple):
    """What runs of a script in one folder came to.

    Attributes:
        seconds: how long the last one took.
        steps: the number of the saver, the step and the time of each safe point.
        facts: what there was at each save, and where a run continued or resumed behind it.
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

    def run(self, folder: Path, kills: Sequence[Kill] = ()) -> Run:
        """Run it in a new folder, from one kill to the next and then to its end.

        Args:
            folder: the folder.
            kills: the points at which it is killed.

        Returns:
            What it came to.

        Raises:
            CheckpointError: it has failed, has saved nothing, or a file to link is missing.
        """
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
            found = record["facts"].items()
            facts[tuple(record["at"])] = {tuple(json.loads(path)): text for path, text in found}
        return Run(seconds, [tuple(json.loads(line)) for line in steps], facts)
