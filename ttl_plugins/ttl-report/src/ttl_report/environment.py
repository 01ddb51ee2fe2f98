"""Where a run took place, and where what ran is documented."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

_DOCUMENTATION = ("documentation", "docs", "homepage", "home", "repository", "source")


def describe_environment() -> dict[str, str]:
    """Return what the program runs on, as lines to show: a label and a text."""
    lines = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "Machine": f"{platform.node()}, {os.cpu_count()} CPUs",
        "System": platform.platform(),
        "Working directory": str(Path.cwd()),
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        counts = (f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        lines["Accelerators"] = ", ".join(counts)
    if commit := git_commit():
        lines["Git commit"] = commit
    return lines


def git_commit() -> str | None:
    """Return the commit of the working directory, and whether files differ from it.

    Returns:
        None where there is no repository, or no git.
    """
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with uncommitted changes" if changes else commit


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    return done.stdout.strip()


@functools.cache
def documentation_url(distribution: str) -> str:
    """Return where a distribution says that it is documented, or else its page on PyPI.

    Args:
        distribution: its name.
    """
    found: dict[str, str] = {}
    try:
        entries = metadata.metadata(distribution).get_all("Project-URL") or []
    except (metadata.PackageNotFoundError, OSError, UnicodeError):
        entries = []
    for entry in entries:
        label, _, url = str(entry).partition(",")
        if url.strip().startswith(("https://", "http://")):
            found[label.strip().lower()] = url.strip()
    urls = (found[label] for label in _DOCUMENTATION if label in found)
    return next(urls, f"https://pypi.org/project/{distribution}/")
