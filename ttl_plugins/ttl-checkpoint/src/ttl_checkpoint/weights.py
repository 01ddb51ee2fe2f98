"""The weights in a checkpoint: to load into a model, or to export."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.reading import read_checkpoint
from ttl_core import RunError, StateError, distributed_like, whole_tensor

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

# what the state of a torch.optim.swa_utils.AveragedModel has, in which components keep averages
_PREFIX = "module."
_COUNT = "n_averaged"


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


def averages_of(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the averages with which a model was validated, by component, in the order of the list.

    They are recognized by their form, as a component may have any name, and be of any package.

    Args:
        state: the state of a loop.
    """
    enabled = [record["name"] for record in state["manifest"] if record["enabled"]]
    found = {name: _averages_in(state["components"].get(name)) for name in enabled}
    return {name: averages for name, averages in found.items() if averages}


def _averages_in(own: Any) -> Mapping[str, Any]:
    """Return the state of an AveragedModel that the state of a component is, or holds."""
    if not isinstance(own, Mapping):
        return {}
    for value in (own, *own.values()):
        if isinstance(value, Mapping) and _COUNT in value:
            return value
    return {}


def weights_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights with which a model was validated: averages where there were some.

    Args:
        state: the state of a loop.
    """
    weights = dict(state["model"])
    for averages in averages_of(state).values():  # of several, the last one is copied in last
        weights = {name: averages.get(f"{_PREFIX}{name}", own) for name, own in weights.items()}
    return weights


def load_best(loop: TrainTestLoop | None, path: Path | None, directory: Path | None) -> Path:
    """Load the weights with which a model was validated into it, and averages into components.

    Args:
        loop: the loop; None if there is none.
        path: the checkpoint; None if there is none.
        directory: where checkpoints are, for errors.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        RunError: there is no loop, or it is running.
        StateError: the model is another one, or a component would validate with other averages.
    """
    if loop is None:
        raise RunError("no loop has run with this component yet. Give one: load_best(loop)")
    if not loop.can_load_state:
        raise RunError("load_best() was called while the loop is running. Call it after that")
    if path is None:
        raise CheckpointError(
            f"no checkpoint in {directory} was saved for its best metric. Give the component one "
            "to watch, as best='valid/loss'. If it has one, nothing was saved there yet, or no "
            "value of it was finite"
        )
    _, state = _read(path)
    averages = averages_of(state)
    _check_no_others(loop, path, state, averages)
    try:
        loop.model.load_state_dict(_distributed(weights_of(state), loop.model))
    except RuntimeError as error:
        raise StateError(f"the model does not fit {path}: {error}") from error
    for name, component in zip(loop.components.names(), loop.components, strict=True):
        # else validation would replace what was loaded by the averages of the last step
        has_averages = name in averages or getattr(component, "averaged", None) is not None
        load = getattr(component, "load_state_dict", None)  # it may be another one of that name
        if has_averages and load is not None and name in state["components"]:
            load(state["components"][name])
    return path


def _check_no_others(
    loop: TrainTestLoop, path: Path, state: Mapping[str, Any], averages: Collection[str]
) -> None:
    """Check that no component has averages of which the checkpoint knows nothing.

    Raises:
        StateError: there is one, which would replace the weights that are loaded.
    """
    for name, component in zip(loop.components.names(), loop.components, strict=True):
        has_averages = getattr(component, "averaged", None) is not None
        if has_averages and name not in state["components"] and loop.components.is_enabled(name):
            there = f"has averages of {', '.join(map(repr, averages))}" if averages else "has none"
            raise StateError(
                f"{name!r} has averages of later steps, with which it would validate in place of "
                f"the weights of {path}, which {there} and no state of {name!r}. Give it the name "
                f"that it had: use(..., name=...); or call loop.components.disable({name!r}) first"
            )


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
