"""The state of a model: whether it fits, and how it is loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from ttl_core.errors import StateError
from ttl_core.shards import distributed_like, is_sharded, is_stored
from ttl_core.state.parts import with_whole_tensors
from ttl_core.state.protocol import State
from ttl_core.state.snapshot import is_dense, snapshot


def check_model(model: torch.nn.Module, saved: State) -> None:
    """Check that a model has the names and shapes of a state, before anything is loaded.

    Args:
        model: the model.
        saved: its state.

    Raises:
        StateError: it has others.
    """
    own = model.state_dict()
    problems = {name: f"it has {name}, the state has not" for name in own.keys() - saved.keys()}
    problems |= {name: f"the state has {name}, it has not" for name in saved.keys() - own.keys()}
    for name in own.keys() & saved.keys():
        shapes = [_shape(tensors[name]) for tensors in (own, saved)]
        if shapes[0] != shapes[1] and not is_lazy(own[name]):
            problems[name] = f"{name} has {_sizes(shapes[0])}, in the state {_sizes(shapes[1])}"
    if problems:
        left_to = tuple(_self_loading(model))
        problems = {name: why for name, why in problems.items() if not name.startswith(left_to)}
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StateError(
            f"the model does not fit the state: {'; '.join(sorted(problems.values())[:5])}{more}. "
            "Create the model that the state was taken of"
        )


def load_model(model: torch.nn.Module, saved: State) -> None:
    """Load the state of a model.

    Args:
        model: the model.
        saved: its state.

    Raises:
        StateError: torch refuses it.
    """
    saved = _distributed_as(model, saved)
    _replace_unusual_buffers(model, saved)
    try:
        model.load_state_dict(saved)
    except RuntimeError as error:
        raise StateError(f"the model does not fit the state: {error}") from error


def _distributed_as(model: torch.nn.Module, saved: State) -> State:
    """Return the state of a model, distributed over processes where the model is."""
    if not any(map(_is_shared_out, (*saved.values(), *model.parameters(), *model.buffers()))):
        return saved  # without a state of the model, which may have hooks of its own
    own = model.state_dict()
    placed = copy.copy(saved)  # with the versions of modules
    for name, value in saved.items():
        if name in own and (_is_shared_out(own[name]) or _is_shared_out(value)):
            placed[name] = distributed_like(value, own[name])
    return with_whole_tensors(placed)  # type: ignore[no-any-return]


def _is_shared_out(value: object) -> bool:
    return is_sharded(value) or is_stored(value)


def _replace_unusual_buffers(model: torch.nn.Module, saved: State) -> None:
    """Give a model buffers that the saved ones can be copied to, in place of those it has.

    Sparse and quantized ones hold more than values, which copying does not change: which of them
    are not zero, or a scale. Expanded ones cannot be written to.
    """
    for path, module in model.named_modules():
        for name, own in module.named_buffers(recurse=False):
            value = saved.get(f"{path}.{name}" if path else name)
            if is_lazy(own) or not isinstance(value, torch.Tensor):
                continue
            if not (is_dense(own) and is_dense(value)) or 0 in own.stride():
                module._buffers[name] = snapshot(value).to(own.device)


def _self_loading(model: torch.nn.Module) -> Iterator[str]:
    """Yield the prefixes of modules that may resize or rename what they load, as observers do."""
    for path, module in model.named_modules():
        has_own_way = (
            module._load_state_dict_pre_hooks
            or type(module).load_state_dict is not torch.nn.Module.load_state_dict
            or type(module)._load_from_state_dict is not torch.nn.Module._load_from_state_dict
        )
        if has_own_way and not isinstance(module, _NormBase):  # those add a counter to old states
            yield f"{path}." if path else ""


def _shape(tensor: Any) -> torch.Size | None:
    if is_lazy(tensor) or (isinstance(tensor, torch.Tensor) and tensor.is_nested):
        return None  # the latter have none, or one that says nothing
    return getattr(tensor, "shape", None)


def _sizes(shape: torch.Size | None) -> str:
    return "no shape" if shape is None else f"shape {tuple(shape)}"
