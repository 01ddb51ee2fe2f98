"""List the checkpoints of a directory, or export weights.

python -m ttl_checkpoint DIRECTORY
python -m ttl_checkpoint export DIRECTORY --best -o weights.safetensors
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from ttl_checkpoint.errors import CheckpointError, CorruptError, os_reason, printable
from ttl_checkpoint.manifest import MANIFEST_FILE
from ttl_checkpoint.reading import verify
from ttl_checkpoint.retention import best_path
from ttl_checkpoint.store import Store
from ttl_checkpoint.weights import export

_INDENT = "    "


def main(arguments: Sequence[str] | None = None) -> int:
    """Check each checkpoint of a directory byte by byte, and print what it holds; or export one.

    Args:
        arguments: the command line; that of the process by default.

    Returns:
        The exit status: 0, 1 if one is corrupt or cannot be read, 2 if there is none.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) > 1 and arguments[0] == "export":  # alone, it is the name of a directory
        return _export(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m ttl_checkpoint",
        description="List the checkpoints of a directory, and check each byte by byte.",
        epilog="The exit status is 1 if one is corrupt or cannot be read, 2 if there is none. "
        "`python -m ttl_checkpoint export --help` says how to export weights.",
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


def _export(arguments: Sequence[str]) -> int:
    """Write the weights of a checkpoint into a file, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ttl_checkpoint export",
        description="Write the weights of a checkpoint into a file of safetensors: the averages "
        "with which the model was validated where the component ema was used, else its own.",
    )
    parser.add_argument("directory", type=Path, help="the directory, or one checkpoint in it")
    parser.add_argument(
        "--best", action="store_true", help="the one with the best metric, not the newest one"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the file, as weights.safetensors"
    )
    given = parser.parse_args(arguments)
    try:
        path = _chosen(given.directory, given.best)
        export(path, given.output)
    except OSError as error:  # a CheckpointError too
        print(printable(error), file=sys.stderr)
        return 1
    print(printable(f"{given.output} holds the weights of {path}"))
    return 0


def _chosen(directory: Path, best: bool) -> Path:
    """Return the checkpoint to export.

    Raises:
        CheckpointError: there is none.
    """
    if (directory / MANIFEST_FILE).exists():
        return directory
    store = Store(directory)
    path = best_path(store) if best else next(iter(store.checkpoints()), None)
    if path is None:
        what = "no checkpoint of a best metric" if best else "no checkpoint"
        raise CheckpointError(f"{what} is in {directory}")
    return path


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
