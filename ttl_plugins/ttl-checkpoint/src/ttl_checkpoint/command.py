"""The command `ttl checkpoints`: the checkpoints of a directory, and their weights in a file."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from ttl_checkpoint.errors import CheckpointError, CorruptError, os_reason, printable
from ttl_checkpoint.manifest import MANIFEST_FILE, SUBFOLDER
from ttl_checkpoint.reading import verify
from ttl_checkpoint.retention import best_path
from ttl_checkpoint.store import Store
from ttl_checkpoint.weights import export

_INDENT = "    "
_SUFFIX = ".safetensors"


def command(parser: argparse.ArgumentParser) -> None:
    """List, verify and export the checkpoints in a directory.

    Its exit status is 0, 1 if a checkpoint is corrupt or cannot be read or exported, 2 if there
    is none.

    Args:
        parser: the parser.
    """
    parser.description = (
        "List the checkpoints of a directory, and check each byte by byte; or export the weights "
        "of one into a file of safetensors: the averages with which the model was validated where "
        "a component that averages them was used, as ema, else its own."
    )
    parser.epilog = (
        "The exit status is 1 if one is corrupt or cannot be read or exported, 2 if there is none."
    )
    parser.add_argument(
        "directory",
        metavar="DIRECTORY",
        type=Path,
        help="the directory, the folder of a run, or one checkpoint",
    )
    parser.add_argument(
        "--export",
        metavar="FILE",
        type=Path,
        help="write the weights of the newest checkpoint into a file, as weights.safetensors",
    )
    parser.add_argument(
        "--best", action="store_true", help="export the one with the best metric instead"
    )
    parser.set_defaults(run=lambda given: _run(parser, given))


def _run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    if given.export is not None:
        if given.export.suffix != _SUFFIX:
            fitting = given.export.parent / f"{given.export.stem or 'weights'}{_SUFFIX}"
            parser.error(
                f"--export {printable(given.export)} is no name of a file of safetensors, which is "
                f"what is written. Give --export {printable(fitting)}"
            )
        return _export(given.directory, given.export, given.best)
    if given.best:
        parser.error("--best says which checkpoint to export: give --export too")
    return _list_all(given.directory)


def _list_all(directory: Path) -> int:
    """Check each checkpoint of a directory, print what it holds, and return the exit status."""
    try:
        is_checkpoint = (directory / MANIFEST_FILE).exists()
        store = _store(directory)
        paths = [directory] if is_checkpoint else store.everything()
        best = None if is_checkpoint else best_path(store)
    except OSError as error:
        reason = os_reason(error.__cause__ if isinstance(error.__cause__, OSError) else error)
        print(f"ttl: {printable(directory)} cannot be read: {reason}", file=sys.stderr)
        return 2
    if not paths:
        print(f"ttl: no checkpoint is in {printable(directory)}", file=sys.stderr)
        return 2
    statuses, above = [], ""
    for path in paths:
        status, above = _list(path, above, best)
        statuses.append(status)
    return max(statuses)


def _store(directory: Path) -> Store:
    """Return the checkpoints of a directory, or of the folder of a run, which has them in one."""
    store = Store(directory)
    inner = directory / SUBFOLDER
    return Store(inner) if inner.is_dir() and not store.everything() else store


def _export(directory: Path, target: Path, best: bool) -> int:
    """Write the weights of a checkpoint into a file, and return the exit status."""
    try:
        path = _chosen(directory, best)
        export(path, target)
    except OSError as error:  # a CheckpointError too
        print(f"ttl: {printable(error)}", file=sys.stderr)
        return 1
    print(printable(f"{target} holds the weights of {path}"))
    return 0


def _chosen(directory: Path, best: bool) -> Path:
    """Return the checkpoint to export.

    Raises:
        CheckpointError: there is none.
    """
    if (directory / MANIFEST_FILE).exists():
        return directory
    store = _store(directory)
    path = best_path(store) if best else next(iter(store.checkpoints()), None)
    if path is None:
        what = "no checkpoint of a best metric" if best else "no checkpoint"
        raise CheckpointError(f"{what} is in {directory}")
    return path


def _list(path: Path, above: str, best: Path | None) -> tuple[int, str]:
    """Print what a checkpoint holds, and return the exit status and what ran.

    Args:
        path: the checkpoint.
        above: what ran when the one above it was saved; it is not printed again.
        best: the best checkpoint; None if that is unknown.
    """
    try:
        manifest = verify(path)
    except Exception as error:  # whatever is wrong with one, the others are listed
        verdict = "CORRUPT" if isinstance(error, CorruptError) else "UNREADABLE"
        text = str(error).removeprefix(f"{path} is corrupt: ") or type(error).__name__
        print(f"{printable(path.name)}  {verdict}")
        _print_wrapped(text.split(" "), " ")
        return 1, above
    size = sum(file["bytes"] for file in manifest["files"].values())
    is_surpassed = manifest["reason"] == "best" and best not in (path, None)
    print(
        f"{printable(path.name)}  epoch {manifest['epoch']}  step {manifest['step']}  "
        f"{'was ' * is_surpassed}{manifest['reason']}  {_size_text(size)}  verified"
        + "  NOT FINITE"
        * (manifest.get("finite") is False)
    )
    _print_wrapped(
        f"{name} {value if isinstance(value, str) else f'{value:.4g}'}"
        for name, value in manifest["metrics"].items()
    )
    ran = [
        " ".join(filter(None, (component["name"], component["version"])))
        for component in manifest["components"]
        if component["enabled"]
    ]
    if str(ran) != above:
        _print_wrapped(ran)
    return 0, str(ran)


def _size_text(n_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"


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
