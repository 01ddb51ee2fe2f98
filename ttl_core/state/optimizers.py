"""Optimizers and schedulers in a state: what their own state_dict() does not keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ttl_core.arguments import describe
from ttl_core.errors import StateError
from ttl_core.shards import distributed_like, is_sharded
from ttl_core.state.parts import with_whole_tensors
from ttl_core.state.protocol import State

# -- when a state is taken ------------------------------------------------------------------


def structure_of(variables: Mapping[str, Any]) -> State:
    """Return what has to be the same where a state is loaded: classes, and sizes of groups.

    Args:
        variables: the loop variables that have state, by name.
    """
    return {
        name: {
            "class": type(value).__qualname__,
            "sizes": _sizes(value) if isinstance(value, Optimizer) else None,
        }
        for name, value in variables.items()
        if isinstance(value, Optimizer | LRScheduler)
    }


def structure_now(variables: Mapping[str, Any], initial: State, model: torch.nn.Module) -> State:
    """Return the structure of variables, with the parameter groups that were added since.

    Args:
        variables: the loop variables that have state, by name.
        initial: what `structure_of` returned at the end of on_train_begin.
        model: the model, in which parameters of added groups have names.

    Raises:
        StateError: no run could resume from them, as on_train_begin creates others.
    """
    now = structure_of(variables)
    for name, record in now.items():
        before = initial.get(name)
        if before is None:
            continue
        if record["class"] != before["class"]:
            raise _not_resumable(name, f"a {before['class']}, and is a {record['class']} now")
        if record["sizes"] == before["sizes"]:
            continue
        n = len(before["sizes"])
        if record["sizes"][:n] != before["sizes"]:
            groups = f"with groups of {before['sizes']} parameters, and has {record['sizes']} now"
            raise _not_resumable(name, groups)
        record["added"] = [
            _added_group(name, group, model) for group in variables[name].param_groups[n:]
        ]
    return now


def _not_resumable(name: str, what: str) -> StateError:
    return StateError(
        f"no run could resume from this state: the loop variable {name!r} was {what}, but a run "
        "resumes with what on_train_begin creates. Exchange it between two train() calls, or "
        "only add parameter groups with add_param_group()"
    )


def _added_group(name: str, group: State, model: torch.nn.Module) -> State:
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    if not all(id(parameter) in names for parameter in group["params"]):
        raise StateError(
            f"no run could resume from this state: a parameter group was added to the loop "
            f"variable {name!r} since on_train_begin, and holds a parameter that is not in "
            "loop.model. Make it part of the model, or add the group in on_train_begin"
        )
    return {
        "params": [names[id(parameter)] for parameter in group["params"]],
        "requires_grad": [parameter.requires_grad for parameter in group["params"]],
    }


# -- when it is loaded ----------------------------------------------------------------------


def is_of_another_class(value: Any, record: State | None) -> bool:
    """Return whether a variable is of another class than that of a record, if there is one."""
    return record is not None and record["class"] != type(value).__qualname__


def check_class(name: str, value: Any, record: State | None) -> None:
    """Check that a variable is of the class that the state was taken of.

    Args:
        name: the name of the variable.
        value: the variable.
        record: its part of the structure; None in states of older versions.

    Raises:
        StateError: it is of another one.
    """
    if record is not None and is_of_another_class(value, record):
        raise StateError(
            f"the loop variable {name!r} is a {type(value).__qualname__}, but the state was taken "
            f"of a {record['class']}. Create that one in on_train_begin, or start this one from "
            f"scratch: ignore=[{name!r}]"
        )


def check_groups(
    name: str, value: Any, saved: State, record: State | None, model: torch.nn.Module
) -> None:
    """Check that an optimizer has the parameter groups of a state, but those added in mid-run.

    Args:
        name: the name of the variable.
        value: the variable.
        saved: its state.
        record: its part of the structure; None in states of older versions.
        model: the model.

    Raises:
        StateError: it has not.
    """
    if not isinstance(value, Optimizer) or "param_groups" not in saved:
        return
    sizes = _sizes(value)
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    added = _missing_groups(value, saved, record)
    if sizes + [len(group["params"]) for group in added] != saved_sizes:
        raise StateError(
            f"the loop variable {name!r}, a {type(value).__name__}, has parameter groups with "
            f"{sizes} parameters, but the state was taken with {saved_sizes}. Make it with the "
            "same groups in on_train_begin"
        )
    known = dict(model.named_parameters())
    missing = [one for group in added for one in group["params"] if one not in known]
    if missing:
        raise StateError(
            f"the state has a parameter group of the loop variable {name!r} with {missing[0]}, "
            "which is no parameter of the model"
        )


def load_optimizer(
    optimizer: Optimizer, saved: State, record: State | None, model: torch.nn.Module, weights: State
) -> None:
    """Load the state of an optimizer, with the groups that were added, in the types it had.

    Args:
        optimizer: the optimizer.
        saved: its state.
        record: its part of the structure; None in states of older versions.
        model: the model.
        weights: the state of the model.
    """
    parameters = dict(model.named_parameters())
    for group in _missing_groups(optimizer, saved, record):
        members = [parameters[name] for name in group["params"]]
        for parameter, requires_grad in zip(members, group["requires_grad"], strict=True):
            parameter.requires_grad_(requires_grad)
        optimizer.add_param_group({"params": members})
    saved = with_whole_tensors(_distributed_as(optimizer, saved))
    optimizer.load_state_dict(saved)
    _check_usable(optimizer)
    _restore_types(optimizer, saved, model, weights)


def memory_of(value: Any) -> State | None:
    """Return the state of an optimizer if its tensors may be written to, else None.

    Args:
        value: a loop variable.
    """
    if not isinstance(value, Optimizer):
        return None
    cls, base = type(value), Optimizer
    is_own = cls.state_dict is base.state_dict and cls.load_state_dict is base.load_state_dict
    hooks = value._optimizer_load_state_dict_pre_hooks, value._optimizer_state_dict_post_hooks
    return value.state_dict() if is_own and not any(hooks) else None


def _distributed_as(optimizer: Optimizer, saved: State) -> State:
    """Return the state of an optimizer, distributed over processes where its parameters are."""
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = [key for group in saved.get("param_groups", ()) for key in group["params"]]
    states = saved.get("state", {})
    placed = {
        key: {
            name: distributed_like(value, parameter)
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape
            else value
            for name, value in states[key].items()
        }
        for key, parameter in zip(keys, own, strict=False)
        if key in states and is_sharded(parameter) and isinstance(states[key], dict)
    }
    return {**saved, "state": {**states, **placed}} if placed else saved


def _check_usable(optimizer: Optimizer) -> None:
    """Check what torch takes from a state as it is, and would find out in the first step."""
    for key, its_state in optimizer.state.items():  # some keep more under other keys
        if isinstance(key, torch.Tensor) and not isinstance(its_state, dict):
            raise TypeError(f"the state of a parameter is {describe(its_state)}")
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            if type(default) in (int, float):  # others may be absent in states of older versions
                value = group.get(name)
                if not isinstance(value, int | float | torch.Tensor):
                    raise TypeError(f"{name!r} of a group is {describe(value)}")


def _missing_groups(optimizer: Optimizer, saved: State, record: State | None) -> list[State]:
    """Return the groups of a state that were added in mid-run, and that an optimizer lacks."""
    added: list[State] = (record or {}).get("added", [])
    n = len(saved["param_groups"]) - len(optimizer.param_groups)
    return added if n == len(added) else []


def _restore_types(optimizer: Optimizer, saved: State, model: Any, weights: State) -> None:
    # Optimizer.load_state_dict() gives all state but "step" the type of its parameter. That is
    # right only where the parameter has another type than it had: state may be of higher precision.
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys = [key for group in saved.get("param_groups", ()) for key in group["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    states = saved.get("state", {})
    for key, parameter in zip(keys, own, strict=False):
        name = names.get(id(parameter), "")
        if key not in states or parameter not in optimizer.state:
            continue
        if name not in weights or weights[name].dtype == parameter.dtype:
            state = optimizer.state[parameter]
            optimizer.state[parameter] = _with_types(state, states[key])


def _with_types(value: Any, saved: Any) -> Any:
    """Return a nested value with the tensors of another one where those have other types."""
    if isinstance(value, torch.Tensor) and isinstance(saved, torch.Tensor):
        is_cast = value.dtype != saved.dtype and value.shape == saved.shape
        return saved.to(device=value.device) if is_cast else value
    if isinstance(value, dict) and isinstance(saved, dict):
        for key in value.keys() & saved.keys() - {"step"}:
            value[key] = _with_types(value[key], saved[key])
    elif type(value) in (list, tuple) and type(saved) in (list, tuple) and len(value) == len(saved):
        return type(value)(map(_with_types, value, saved))
    return value


def _sizes(optimizer: Optimizer) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]
