"""List the checkpoints of a directory: `python -m ttl_checkpoint DIRECTORY`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ttl_checkpoint.store import CheckpointError, CorruptError, Store, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of the checkpoints of a directory, each checked byte by byte.

    Args:
        arguments: the command line; that of the process by default.

    Returns:
        The exit status: 0, 1 if a checkpoint is corrupt, 2 if there is nothing to list.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ttl_checkpoint",
        description="List the checkpoints of a directory, and check each against its digest.",
        epilog="The exit status is 1 if one is corrupt, 2 if there is none.",
    )
    parser.add_argument("directory", type=Path, help="the directory, or one checkpoint in it")
    directory = parser.parse_args(arguments).directory
    paths = [directory] if (directory / "manifest.json").exists() else Store(directory).everything()
    if not paths:
        print(f"no checkpoint is in {directory}", file=sys.stderr)
        return 2
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("checkpoint", "epoch", "step", "metrics", "MB", "what ran", ""):
        is_number = title in ("epoch", "step", "MB")
        table.add_column(
            title, justify="right" if is_number else "left", no_wrap=title not in ("what ran", "")
        )
    n_corrupt = 0
    for path in paths:
        try:
            table.add_row(path.name, *_cells(verify(path)), "verified")
        except CorruptError as error:
            n_corrupt += 1
            what = str(error).removeprefix(f"{path} is ")
            table.add_row(path.name, "", "", "", "", "", f"[red]{what}")
        except CheckpointError as error:
            table.add_row(path.name, "", "", "", "", "", f"[red]{error}")
    Console().print(table)
    return 1 if n_corrupt else 0


def _cells(manifest: Mapping[str, Any]) -> list[str]:
    size = sum(file["bytes"] for file in manifest["files"].values())
    ran = [record["name"] for record in manifest["components"] if record["enabled"]]
    return [
        str(manifest["epoch"]),
        str(manifest["step"]),
        "\n".join(f"{name} {_short(value)}" for name, value in manifest["metrics"].items()),
        f"{size / 1e6:.1f}",
        ", ".join(ran),
    ]


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
