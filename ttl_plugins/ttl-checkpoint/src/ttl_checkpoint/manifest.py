"""The manifest of a checkpoint: what it says, how it is written, and what is accepted as one.

There is exactly one way to write a manifest, byte by byte, and it holds its own digest.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttl_checkpoint.errors import CheckpointError, CorruptError, is_printable
from ttl_checkpoint.files import explaining_os_errors, open_regular

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

FORMAT = 1
STATE_FILE, MANIFEST_FILE = "state.pt", "manifest.json"
UNPROVEN_FILE = "unproven"
"""An empty file by which a component marks a checkpoint as one that may not be healthy."""
SUBFOLDER = "checkpoints"  # of the folder of a run, where no directory is given
NAME = re.compile(
    r"(?P<kind>crash-|corrupt-)?(?P<number>[0-9]{6,18})-epoch-(?P<epoch>[0-9]{1,18})"
    r"-step-(?P<step>[0-9]{1,18})(?:-rank-(?P<rank>[0-9]{1,9}))?"
)
"""What a checkpoint's directory is called."""
PART_FILE = re.compile(r"rank-(?P<rank>[0-9]{5,9})\.bin")
"""What the file of a process is called, with its parts of distributed tensors."""
MAX_BYTES = 16 << 20
_TYPES: Mapping[str, Any] = {
    "format": int,
    "epoch": int,
    "step": int,
    "reason": str,
    "run": str,
    "best": float | int | None,
    "metrics": dict,
    "components": list,
    "files": dict,
}


def describe(
    loop: TrainTestLoop,
    state: Mapping[str, Any],
    *,
    reason: str,
    run: str,
    best: float | None,
    **more: Any,
) -> dict[str, Any]:
    """Return what a manifest says about a state.

    Args:
        loop: the loop that the state was taken of.
        state: the state.
        reason: why it is saved: "due", "best", "signal", "end" or "exception".
        run: the identifier of the run.
        best: the value of the monitored metric, where it has just improved.
        **more: further entries.
    """
    position = state["position"] or {"is_trained": False, "train_num": None}
    return {
        "reason": reason,
        "created": datetime.datetime.now(datetime.UTC).isoformat(),
        "run": run,
        "train_num": position["train_num"],
        "epoch": loop.epoch_num + position["is_trained"],
        "step": loop.global_step,
        "best": best,
        "metrics": _single_numbers(state["metrics"]),
        "components": state["manifest"],
        "environment": state["environment"],
        **more,
    }


def _single_numbers(metrics: Mapping[str, Any]) -> dict[str, float | str]:
    """Return the metrics that are single numbers, as JSON can hold them."""
    found: dict[str, float | str] = {}
    for name, value in metrics.items():
        if not is_printable(name):
            continue
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # several numbers, or none
            number = float(value)
            found[name] = number if math.isfinite(number) else str(number)
    return found


def part_file(rank: int) -> str:
    """Return the name of the file with the parts of a process."""
    return f"rank-{rank:05}.bin"


def encode(about: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the content of a manifest file.

    Args:
        about: what `describe` returned.
        files: size and digest of each file of the checkpoint, by name.

    Raises:
        CheckpointError: it would be too long to be read.
    """
    content = _encode({"format": FORMAT, **about, "files": files})
    if len(content) > MAX_BYTES:
        raise CheckpointError(
            f"a manifest would have {len(content) / 1e6:.0f} MB, and more than "
            f"{MAX_BYTES / 1e6:.0f} MB are not read: log fewer metrics at epoch level, or under "
            "shorter names"
        )
    return content


def _encode(manifest: Mapping[str, Any]) -> bytes:
    # written once with a place for the digest of the rest, as json is slow with an indent
    text = json.dumps({**manifest, "sha256": ""}, indent=1, sort_keys=True, allow_nan=False)
    before, line, after = text.partition('\n "sha256": "",')
    if not line:
        raise ValueError("a manifest has an entry after its digest, 'step', but this one has none")
    digest = hashlib.sha256((before + after).encode()).hexdigest()
    return f'{before}\n "sha256": "{digest}",{after}\n'.encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint, checked in itself but not against the state.

    Args:
        path: the directory of the checkpoint.

    Raises:
        CorruptError: it is not what was written.
        CheckpointError: it cannot be read.
    """
    with explaining_os_errors(path):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise CorruptError(f"{path} is corrupt: it is no directory")
        with open_regular(path / MANIFEST_FILE) as stream:
            content = stream.read(MAX_BYTES + 1)
    try:
        manifest = json.loads(content)
        is_valid = len(content) <= MAX_BYTES and _is_valid(manifest, content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        is_valid = False
    if not is_valid:
        raise CorruptError(f"{path} is corrupt: {MANIFEST_FILE} is not what was written")
    _check_name(path, manifest)
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest['format']}, this ttl-checkpoint reads {FORMAT}. "
            "Install the version that wrote it"
        )
    return dict(manifest)


def _is_valid(manifest: Mapping[str, Any], content: bytes) -> bool:
    """Return whether a manifest was written by `encode`, and holds what is read from one."""
    without_digest = {key: value for key, value in manifest.items() if key != "sha256"}
    return (
        _encode(without_digest) == content
        and all(isinstance(manifest[name], type_) for name, type_ in _TYPES.items())
        and all(is_printable(text) for text in (manifest["reason"], *manifest["metrics"]))
        and all(isinstance(value, str) or _is_number(value) for value in _numbers(manifest))
        and all(
            isinstance(item["name"], str)
            and isinstance(item["version"], str | None)
            and isinstance(item["enabled"], bool)
            for item in manifest["components"]
        )
        and manifest.get("mode") in (None, "min", "max")
        and STATE_FILE in manifest["files"]
        and all(
            (name == STATE_FILE or PART_FILE.fullmatch(name))
            and isinstance(file["bytes"], int)
            and isinstance(file["sha256"], str)
            for name, file in manifest["files"].items()
        )
    )


def _numbers(manifest: Mapping[str, Any]) -> list[Any]:
    best = [] if manifest["best"] is None else [manifest["best"]]
    return [*manifest["metrics"].values(), *best]


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)  # 10**400 is an OverflowError


def _check_name(path: Path, manifest: Mapping[str, Any]) -> None:
    """Check that a checkpoint that is named for an epoch and a step is the one of these.

    Raises:
        CorruptError: it is another one.
    """
    named = NAME.fullmatch(path.name)
    if not named:  # a copy that a user has named
        return
    is_crash = manifest["reason"] == "exception"
    saved = (manifest["epoch"], manifest["step"])
    if (int(named["epoch"]), int(named["step"])) != saved:
        raise CorruptError(
            f"{path} is corrupt: its manifest is of epoch {saved[0]} and step {saved[1]}"
        )
    if named["kind"] != "corrupt-" and is_crash != (named["kind"] == "crash-"):
        raise CorruptError(
            f"{path} is corrupt: its manifest says that it was saved for {manifest['reason']!r}"
        )
