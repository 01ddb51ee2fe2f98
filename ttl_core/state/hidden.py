"""State that objects have, though their state_dict() is empty: as metrics of torchmetrics do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ttl_core.state.protocol import State

_OF_MODULES = {"_parameters", "_buffers", "_modules"}


def hidden_state(value: Any) -> State:
    """Return the state in the attributes of an object whose state_dict() is empty.

    That is its tensors, those of its submodules, and for metrics what they declare as state.

    Args:
        value: the object.
    """
    found = {path: _attributes(part) for path, part in _parts(value)}
    return {path: attributes for path, attributes in found.items() if attributes}


def load_hidden_state(value: Any, state: Mapping[str, State]) -> None:
    """Set the attributes of an object.

    Args:
        value: the object.
        state: what `hidden_state` returned.
    """
    parts = dict(_parts(value))
    for path, attributes in state.items():
        if path in parts:
            part = parts[path]
            for name, saved in attributes.items():
                current = getattr(part, name, None)
                device = getattr(current, "device", None) or getattr(part, "device", None)
                setattr(part, name, _on(saved, device))


def _on(value: Any, device: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device) if isinstance(device, torch.device) else value
    return [_on(item, device) for item in value] if isinstance(value, list) else value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, torch.nn.Module):
        yield "", value
        return
    yield from value.named_modules()


def _attributes(part: Any) -> State:
    own: Mapping[str, Any] = getattr(part, "__dict__", {})
    declared = own.get("_defaults", {}) if isinstance(part, torch.nn.Module) else {}
    found = {name: own[name] for name in declared if name in own}
    for name, value in own.items():
        if name in _OF_MODULES:
            continue
        is_progress = bool(declared) and name.startswith("_") and _is_progress(value)
        if isinstance(value, torch.Tensor) or _is_list_of_tensors(value) or is_progress:
            found[name] = value
    buffers = own.get("_buffers", {})  # none of them is persistent, as state_dict() is empty
    return found | {name: value for name, value in buffers.items() if value is not None}


def _is_progress(value: Any) -> bool:
    """Return whether a value is a counter, a flag or a value that is not computed yet."""
    return value is None or type(value) in (bool, int, float)


def _is_list_of_tensors(value: Any) -> bool:
    return (
        type(value) is list
        and bool(value)
        and all(isinstance(item, torch.Tensor) for item in value)
    )
