"""What surrounds a run: the command, the code, the installed distributions, the machine."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ttl_core.arguments import kebab_case

_GIT_TIMEOUT = 5.0  # seconds


def script() -> Path | None:
    """Return the path of the script, or of the module, that this process runs, if there is one."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute() if file else None


def script_name() -> str:
    """Return a name for what this process runs: that of its script, else "run"."""
    path = script()
    if path is None:
        return "run"
    return kebab_case(path.parent.name if path.stem == "__main__" else path.stem)


def surroundings() -> dict[str, Any]:
    """Return what surrounds a run, as data that JSON can hold."""
    return {
        "command": sys.orig_argv,
        "directory": os.getcwd(),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "git": git_state(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """Return what is known about the machine, without initializing its devices."""
    return {
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "devices": _devices(),
    }


def _devices() -> list[str]:
    n_cuda = torch.cuda.device_count()  # by NVML, so that workers may still be forked
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return [torch.cuda.get_device_name(index) for index in range(n_cuda)]
    if n_cuda == 0 and torch.backends.mps.is_available():
        return ["mps"]
    return ["cuda"] * n_cuda


@functools.cache  # it takes a while, and what this process has imported does not change
def versions() -> dict[str, str]:
    """Return the versions of all installed distributions, by name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        with contextlib.suppress(Exception):  # of which the metadata are damaged
            # the first one is what is imported
            found.setdefault(distribution.name, distribution.version)
    # on some indexes its metadata do not say for which devices it was built, as in 2.13.0+cu130
    found["torch"] = str(torch.__version__)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


@functools.cache
def git_state() -> dict[str, Any] | None:
    """Return the commit of the script, or of the working directory, and if files were changed.

    Untracked files do not count, as the folder of the run may be one. It is None where there is no
    git, no repository, or no answer in time.
    """
    path = script()
    directory = path.parent if path else Path.cwd()
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        output = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # changes nothing in the repository
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT,
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    lines = output.splitlines()
    about = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    return {
        "commit": about.get("branch.oid"),
        "branch": about.get("branch.head"),
        "dirty": any(not line.startswith("#") for line in lines),
    }
