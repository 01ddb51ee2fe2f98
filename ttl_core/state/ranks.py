"""The state of a group of processes: that of the main process, and what differs in the others."""

from __future__ import annotations

import hashlib
import io
import itertools
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from ttl_core.arguments import user_stacklevel
from ttl_core.errors import StateError
from ttl_core.group import Group
from ttl_core.shards import is_sharded, whole_tensor
from ttl_core.state.parts import in_parts, map_tensors
from ttl_core.state.protocol import State


def state_of_group(state: State, group: Group, *, sharded: bool = False) -> State:
    """Return the state of the main process with what differs in the others.

    Model, optimizers and schedulers are the same in all of them, but for tensors of which each
    process has a part. Those are whole ones, on the CPU, in the state that the main process gets;
    in others they stay as they are. All processes have to call this.

    Args:
        state: the state of this process.
        group: the processes.
        sharded: whether to have descriptions in place of such tensors: see `in_parts`.
    """
    if group.size == 1:
        return state
    _check_same_shards(state, group)
    if sharded:
        state = in_parts(state, group)
    digests = {name: _digest(part) for name, part in _own_parts(state).items()}
    main = group.broadcast(digests)
    differing = {name for name, digest in digests.items() if digest != main.get(name)}
    if "parts" not in state:
        state = _with_whole_tensors(state, None if group.is_main else differing)
    parts = {name: part for name, part in _own_parts(state).items() if name in differing}
    ranks = group.gather({} if group.is_main else parts)
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
    differing -= {f"{kind}{name}" for kind in _KINDS for name in ignored}
    if differing:
        names = ", ".join(sorted(repr(_without_kind(name)) for name in differing))
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
    # variables only where their large tensors are elsewhere: comparing those takes long
    kinds = _KINDS if "parts" in state else _KINDS[:1]
    named = {f"{kind}{name}": part for kind in kinds for name, part in state[kind[:-1]].items()}
    return {
        "random": state["random"],
        "generators": state["generators"],
        "data": state["data"],
        "epoch": position.get("epoch"),
        **named,
    }


_KINDS = ("components.", "variables.", "hidden.")
"""What begins the names of parts of a state that have several by name."""


def _without_kind(name: str) -> str:
    return name.partition(".")[2] or name


def _replaced(state: State, parts: Mapping[str, Any]) -> State:
    """Return a state with those parts that differ in a process."""
    for name, part in parts.items():
        kind, dot, rest = name.partition(".")
        if name == "epoch":
            state = {**state, "position": {**state["position"], "epoch": part}}
        elif dot:
            state = {**state, kind: {**state[kind], rest: part}}
        else:
            state = {**state, name: part}
    return state


def _digest(part: Any) -> bytes:
    stream = io.BytesIO()
    # what of a tensor another process has is no difference
    torch.save(map_tensors(part, _shape_and_type, is_sharded), stream)
    return hashlib.blake2b(stream.getbuffer()).digest()


def _shape_and_type(tensor: torch.Tensor) -> object:
    return tensor.shape, str(tensor.dtype)


# -- tensors of which each process has a part -----------------------------------------------


def _check_same_shards(state: State, group: Group) -> None:
    """Check that all processes have parts of the same tensors, as they put them together in turn.

    Raises:
        StateError: they have not.
    """
    own = [(path, tuple(tensor.shape), _placed(tensor)) for path, tensor in _shards(state, "")]
    several = group.gather(own)
    for rank, others in enumerate(several):
        if others != several[0]:
            pairs = itertools.zip_longest(several[0], others)
            first, other = next(pair for pair in pairs if pair[0] != pair[1])
            raise StateError(
                "the state of a group holds tensors of which each process has a part, but they "
                f"are not the same in all: the main process has {first}, and rank {rank} has "
                f"{other}. A component keeps such a tensor in some of the processes only"
            )


def _placed(tensor: Any) -> str:
    return str(tensor.placements)


def _shards(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if is_sharded(value):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _shards(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _shards(item, f"{path}.{i}")


def _with_whole_tensors(state: State, kept: Collection[str] | None) -> State:
    """Return a state with whole tensors in the parts that are kept; None for all parts."""

    def whole(part: Any, name: str) -> Any:
        def function(tensor: torch.Tensor) -> Any:
            result = whole_tensor(tensor.detach())  # also where it is not kept: others need it
            return result.to("cpu") if kept is None or name in kept else tensor

        return map_tensors(part, function, is_sharded)

    components = {n: whole(part, f"components.{n}") for n, part in state["components"].items()}
    return {
        **{name: whole(part, name) for name, part in state.items() if name != "components"},
        "components": components,
    }
