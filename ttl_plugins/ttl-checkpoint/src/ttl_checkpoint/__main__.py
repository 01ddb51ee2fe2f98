"""List the checkpoints of a directory: `python -m ttl_checkpoint DIRECTORY`."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ttl_checkpoint.store import CheckpointError, CorruptError, Store, verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what each checkpoint of a directory holds, when every byte of it has been checked.

    Args:
        arguments: the command line; that of the process by default.

    Returns:
        The exit status: 0, 1 if one is corrupt or cannot be read, 2 if there is none.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ttl_checkpoint",
        description="List the checkpoints of a directory, and check each byte by byte.",
        epilog="The exit status is 1 if one is corrupt or cannot be read, 2 if there is none.",
    )
    parser.add_argument("directory", type=Path, help="the directory, or one checkpoint in it")
    directory = parser.parse_args(arguments).directory
    paths = [directory] if (directory / "manifest.json").exists() else Store(directory).everything()
    if not paths:
        print(f"no checkpoint is in {directory}", file=sys.stderr)
        return 2
    return max([_show(path) for path in paths])


def _show(path: Path) -> int:
    try:
        manifest = verify(path)
    except CheckpointError as error:
        verdict = "CORRUPT" if isinstance(error, CorruptError) else "UNREADABLE"
        print(f"{path.name}  {verdict}")
        _print_wrapped(str(error).removeprefix(f"{path} is corrupt: ").split(" "), " ")
        return 1
    size = sum(file["bytes"] for file in manifest["files"].values())
    print(
        f"{path.name}  epoch {manifest['epoch']}  step {manifest['step']}  "
        f"{manifest['reason']}  {size / 1e6:.1f} MB  verified"
    )
    _print_wrapped(f"{name} {_short(value)}" for name, value in manifest["metrics"].items())
    _print_wrapped(_origin(record) for record in manifest["components"] if record["enabled"])
    return 0


def _print_wrapped(items: Iterable[str], separator: str = ", ") -> None:
    """Print items indented, and as many in a line as fit."""
    space = "\N{NO-BREAK SPACE}"  # where no line may end
    text = separator.join(item.replace(" ", space) for item in items)
    lines = textwrap.wrap(
        text,
        shutil.get_terminal_size().columns,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
    for line in lines:
        print(line.replace(space, " "))


def _origin(record: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (record["name"], record["version"])))


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
