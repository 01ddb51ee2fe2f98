"""List the checkpoints of a directory: `python -m ttl_checkpoint DIRECTORY`."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from ttl_checkpoint.errors import CorruptError, os_reason, printable
from ttl_checkpoint.manifest import MANIFEST_FILE
from ttl_checkpoint.reading import verify
from ttl_checkpoint.store import Store

_INDENT = "    "


def main(arguments: Sequence[str] | None = None) -> int:
    """Check each checkpoint of a directory byte by byte, and print what it holds.

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
    try:
        is_checkpoint = (directory / MANIFEST_FILE).exists()
        paths = [directory] if is_checkpoint else Store(directory).everything()
    except OSError as error:
        reason = os_reason(error.__cause__ if isinstance(error.__cause__, OSError) else error)
        print(f"{printable(directory)} cannot be read: {reason}", file=sys.stderr)
        return 2
    if not paths:
        print(f"no checkpoint is in {printable(directory)}", file=sys.stderr)
        return 2
    return max([_list(path) for path in paths])


def _list(path: Path) -> int:
    """Print what a checkpoint holds, and return the exit status."""
    try:
        manifest = verify(path)
    except Exception as error:  # whatever is wrong with one, the others are listed
        verdict = "CORRUPT" if isinstance(error, CorruptError) else "UNREADABLE"
        text = str(error).removeprefix(f"{path} is corrupt: ") or type(error).__name__
        print(f"{printable(path.name)}  {verdict}")
        _print_wrapped(text.split(" "), " ")
        return 1
    size = sum(file["bytes"] for file in manifest["files"].values())
    print(
        f"{printable(path.name)}  epoch {manifest['epoch']}  step {manifest['step']}  "
        f"{manifest['reason']}  {size / 1e6:.1f} MB  verified"
        + "  NOT FINITE"
        * (manifest.get("finite") is False)
    )
    _print_wrapped(
        f"{name} {value if isinstance(value, str) else f'{value:.4g}'}"
        for name, value in manifest["metrics"].items()
    )
    _print_wrapped(
        " ".join(filter(None, (component["name"], component["version"])))
        for component in manifest["components"]
        if component["enabled"]
    )
    return 0


def _print_wrapped(items: Iterable[str], separator: str = ", ") -> None:
    """Print items indented, as many in a line as fit; no item is broken, or acts on a terminal."""
    space = "\N{NO-BREAK SPACE}"  # where no line may end
    text = separator.join(printable(item).replace(" ", space) for item in items)
    lines = textwrap.wrap(
        text,
        shutil.get_terminal_size().columns,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )
    for line in lines:
        print(line.replace(space, " "))


if __name__ == "__main__":
    sys.exit(main())
