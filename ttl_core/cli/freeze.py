"""`ttl freeze`: the distributions that a run needs, as requirements."""

from __future__ import annotations

import argparse
import csv
import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from ttl_core import discovery
from ttl_core.cli.plugins import all_components
from ttl_core.cli.ran import Ran, read_ran, requirement

if TYPE_CHECKING:
    from importlib_metadata import Distribution

_OF_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl freeze`."""
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        type=Path,
        help="run.json, a checkpoint, a folder of checkpoints, or a manifest; by default, all that "
        "provides components",
    )
    parser.set_defaults(run=_freeze)


def _freeze(given: argparse.Namespace) -> int:
    if given.file is None:
        ran = Ran([each._asdict() for each in all_components()], {}, platform.python_version())
    else:
        ran = read_ran(given.file)
    if ran.python:
        print(f"# Python {ran.python}")
    for name in ran.needed():
        print(_requirement(name, ran.versions.get(name)))
    return 0


def _requirement(name: str, version: str | None) -> str:
    """Return the line for a distribution.

    Args:
        name: its name.
        version: the version that ran, if that is known.
    """
    dist = discovery.installed_distribution(name)
    installed = dist.version if dist else "none"
    wanted = version or installed
    if wanted == "none":
        return f"# {name}: required, and not installed"
    remarks = [wanted] if "+" in wanted else []
    if dist is None or wanted != installed:
        remarks.append(f"installed: {installed}")
    elif discovery.is_editable(dist):
        remarks.append("editable, so its files may have changed")
    elif digest := record_digest(dist):
        remarks.append(f"record: sha256:{digest}")
    return "  # ".join([requirement(name, wanted), *([", ".join(remarks)] if remarks else [])])


def record_digest(dist: Distribution) -> str | None:
    """Return a digest of the files of a distribution, by the hashes that its RECORD lists.

    It is the same wherever the same wheel is installed: what is left out is what installers write,
    such as scripts, which begin with the path of Python.

    Args:
        dist: the distribution.

    Returns:
        None where it lists none.
    """
    rows = csv.reader((dist.read_text("RECORD") or "").splitlines())
    lines = sorted(
        f"{row[0]},{row[1]}\n"
        for row in rows
        if len(row) > 1
        and row[1]
        and not row[0].startswith((".", "/"))
        and not row[0].endswith(_OF_INSTALLERS)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None
