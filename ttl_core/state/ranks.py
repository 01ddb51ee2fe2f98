"""The state of a group of processes: that of the main process, and what differs in the others."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch

from ttl_core.arguments import user_stacklevel
from ttl_core.errors import StateError
from ttl_core.group import Group
from ttl_core.state.protocol import State


def state_of_group(state: State, group: Group) -> State:
    """Return the state of the main process with what differs in the others.

    Model, optimizers and schedulers are the same in all of them. All processes have to call this.

    Args:
        state: the state of this process.
        group: the processes.
    """
    if group.size == 1:
        return state
    own = _own_parts(state)
    digests = {name: _digest(part) for name, part in own.items()}
    main = group.broadcast(digests)
    differing = {name: part for name, part in own.items() if digests[name] != main.get(name)}
    ranks = group.gather({} if group.is_main else differing)
    return {**state, "group": {"size": group.size, "ranks": ranks}}


def state_of_rank(state: Mapping[str, Any], group: Group, ignored: Collection[str]) -> State:
    """Return the state that this process resumes from, of one that a group has saved.

    Args:
        state: what `state_of_group` returned, maybe in a group of another size.
        group: the processes that resume.
        ignored: names of components whose state may be that of the main process.

    Raises:
        StateError: the number of processes is another one, and something had another state in
            each.
    """
    state = dict(state)
    saved = state.pop("group", None) or {"size": 1, "ranks": [{}]}
    if saved["size"] == group.size:
        return _replaced(state, saved["ranks"][group.rank])
    differing = {name for parts in saved["ranks"] for name in parts} - {"random"}
    differing -= {f"components.{name}" for name in ignored}
    if differing:
        names = ", ".join(sorted(repr(n.removeprefix("components.")) for n in differing))
        raise StateError(
            f"the state was taken in {_processes(saved['size'])}, and is to be loaded in "
            f"{_processes(group.size)}, but the state of {names} was another one in each. Resume "
            "with as many as before; or from a state between epochs; or, of components, with the "
            "state of the main process: ignore=[...]"
        )
    if group.is_main:
        warnings.warn(
            f"the run resumes in {_processes(group.size)}, and was saved in "
            f"{_processes(saved['size'])}: random numbers, and the order in which gradients are "
            "added up, are others than without the interruption",
            UserWarning,
            stacklevel=user_stacklevel(),
        )
    if group.rank < saved["size"]:
        return _replaced(state, saved["ranks"][group.rank])
    return {**state, "random": None}  # this process has none yet, and keeps those it starts with


def _processes(n: int) -> str:
    return "one process" if n == 1 else f"{n} processes"


def _own_parts(state: State) -> dict[str, Any]:
    """Return the parts of a state that may differ between processes, by name."""
    position = state["position"] or {}
    components = {f"components.{name}": part for name, part in state["components"].items()}
    return {
        "random": state["random"],
        "generators": state["generators"],
        "data": state["data"],
        "epoch": position.get("epoch"),
        **components,
    }


def _replaced(state: State, parts: Mapping[str, Any]) -> State:
    """Return a state with those parts that differ in a process."""
    components = dict(state["components"])
    for name, part in parts.items():
        if name == "epoch":
            state = {**state, "position": {**state["position"], "epoch": part}}
        elif name.startswith("components."):
            components[name.removeprefix("components.")] = part
        else:
            state = {**state, name: part}
    return {**state, "components": components}


def _digest(part: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(part, stream)
    return hashlib.blake2b(stream.getbuffer()).digest()
