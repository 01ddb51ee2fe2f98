"""The weights in a checkpoint: to load into a model, or to export."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.reading import read_checkpoint
from ttl_core import RunError, StateError, distributed_like, whole_tensor

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_AVERAGING = "ema"  # the name of the component whose averages validation uses
_PREFIX = "module."  # of the weights in the state of a torch.optim.swa_utils.AveragedModel


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the state of a checkpoint, which has weights.

    Raises:
        CheckpointError: it cannot be read, or has none.
    """
    manifest, state = read_checkpoint(path)
    missing = {"model", "components", "manifest"} - state.keys()
    if missing:
        raise CheckpointError(f"{path} has no weights: its state lacks {min(missing)!r}")
    return manifest, state


def averages_of(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of the component `ema` with which a model was validated; else an empty one.

    Args:
        state: the state of a loop.
    """
    enabled = {record["name"] for record in state["manifest"] if record["enabled"]}
    averages = state["components"].get(_AVERAGING) if _AVERAGING in enabled else None
    return averages if isinstance(averages, Mapping) else {}


def weights_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights with which a model was validated: averages where `ema` was enabled.

    Args:
        state: the state of a loop.
    """
    averages = averages_of(state)
    return {name: averages.get(f"{_PREFIX}{name}", own) for name, own in state["model"].items()}


def load_best(loop: TrainTestLoop | None, path: Path | None, directory: Path | None) -> Path:
    """Load the weights with which a model was validated into it, and averages into `ema`.

    Args:
        loop: the loop; None if there is none.
        path: the checkpoint; None if there is none.
        directory: where checkpoints are, for errors.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        RunError: there is no loop, or it is running.
        StateError: the model is another one.
    """
    if loop is None:
        raise RunError("no loop has run with this component yet. Give one: load_best(loop)")
    if not loop.can_load_state:
        raise RunError("load_best() was called while the loop is running. Call it after that")
    if path is None:
        raise CheckpointError(
            f"no checkpoint in {directory} was saved for its best metric. Give the component one "
            "to watch, as best='valid/loss'"
        )
    _, state = _read(path)
    try:
        loop.model.load_state_dict(_distributed(weights_of(state), loop.model))
    except RuntimeError as error:
        raise StateError(f"the model does not fit {path}: {error}") from error
    averages = averages_of(state)
    if averages and _AVERAGING in loop.components.names():
        # else validation would replace what was loaded by the averages of the last step
        loop.components[_AVERAGING].load_state_dict(averages)
    return path


def _distributed(weights: Mapping[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """Return weights that are distributed over processes where those of a model are."""
    own = model.state_dict()
    return {
        name: distributed_like(value, own[name])
        if isinstance(value, torch.Tensor) and isinstance(own.get(name), torch.Tensor)
        else value
        for name, value in weights.items()
    }


def export(path: Path, target: Path) -> None:
    """Write the weights of a checkpoint, and nothing else, into a file of safetensors.

    The file appears complete or not at all, and replaces one of that name.

    Args:
        path: the checkpoint.
        target: the file.

    Raises:
        CheckpointError: the checkpoint cannot be read, or the file not written.
    """
    from safetensors.torch import save_file

    manifest, state = _read(path)
    weights = weights_of(state)
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            kind = value.layout if isinstance(value, torch.Tensor) else type(value).__name__
            raise CheckpointError(
                f"{path} cannot be exported: {name!r} is {kind}, and safetensors holds dense "
                f"tensors only. torch.load('{path}/state.pt')['model'] has it"
            )
    # tied weights get memory of their own, without which safetensors refuses them
    tensors = {name: whole_tensor(value).contiguous().clone() for name, value in weights.items()}
    about = {
        "format": "pt",
        "checkpoint": path.name,
        "epoch": str(manifest["epoch"]),
        "step": str(manifest["step"]),
        "averages": str(bool(averages_of(state))).lower(),
    }
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        save_file(tensors, temporary, metadata=about)
        os.replace(temporary, target)
    except Exception as error:  # safetensors has an error of its own for those of the system
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(f"{target} cannot be written: {error}") from error
