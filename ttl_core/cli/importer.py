"""Importing components in processes of their own, so that a crash or a hang is a result.

`python -P -m ttl_core.cli.importer SECONDS NAME...` imports torch once and forks for each
component; where processes cannot be forked, it is run once a component.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence

from ttl_core import discovery
from ttl_core.cli.plugins import full_name
from ttl_core.discovery import InstalledComponent
from ttl_core.errors import TTLError


def find_import_failures(
    components: Sequence[InstalledComponent], seconds: float
) -> dict[str, str | None]:
    """Import components, each in a process of its own.

    Args:
        components: the components.
        seconds: how long one import may take.

    Returns:
        For each full name how importing it failed; None if it did not.
    """
    names = [full_name(component) for component in components]
    batches = [names] if hasattr(os, "fork") else [[name] for name in names]
    found: dict[str, str | None] = {}
    for batch in batches:
        # -P: a module in the current folder is not the one that is installed
        command = [sys.executable, "-P", "-m", "ttl_core.cli.importer", str(seconds), *batch]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found |= dict(lines)
        for name in batch[len(lines) :]:
            found[name] = f"importing it ended the process with status {done.returncode}"
    return found


def main(arguments: Sequence[str]) -> None:
    """Import components, and print a line of JSON for each with its name and failure.

    Args:
        arguments: the seconds that one import may take, and the full names.
    """
    seconds, *names = arguments
    report = os.fdopen(os.dup(1), "w")  # what is imported may print, or close standard output
    os.dup2(2, 1)
    if hasattr(os, "fork"):
        importlib.import_module("torch")  # which every component imports, and takes a second
    for name in names:
        failure = _import_forked(name, float(seconds)) if hasattr(os, "fork") else _import(name)
        print(json.dumps([name, failure]), file=report, flush=True)


def _import(name: str) -> str | None:
    try:
        discovery.load(discovery.find(name))
    except TTLError as error:
        return str(error)
    return None


def _import_forked(name: str, seconds: float) -> str | None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)  # so that what it has started ends with it
        failure = _import(name)
        os.write(writing, json.dumps(failure).encode())
        os._exit(0)  # without what is registered to run at exit
    os.close(writing)
    deadline, said = time.monotonic() + seconds, b""
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reading, 1 << 16)
        said += part
        if not part:
            break
    else:
        os.killpg(child, 9)
    os.close(reading)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if said:
        return json.loads(said)  # type: ignore[no-any-return]
    if status == -9 and time.monotonic() >= deadline:
        return f"importing it did not end within {seconds:g} seconds"
    if status < 0:
        return f"importing it killed the process with signal {-status}"
    return f"importing it ended the process with status {status}"


if __name__ == "__main__":
    main(sys.argv[1:])
