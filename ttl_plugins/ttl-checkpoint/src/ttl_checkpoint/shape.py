"""The shape of a state, which is checked before any of it is used.

A matching digest does not prove that a loop wrote a state: it is made as easily as the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttl_checkpoint.errors import CheckpointError, printable

_MAX_DEPTH = 200  # of nested values; Python fails at about a thousand
_PARTS: Mapping[str, Any] = {
    "position": dict | None,
    "model": dict,
    "variables": dict,
    "metrics": dict,
    "components": dict,
    "random": dict,
    "data": dict,
    "environment": dict,
    "manifest": list,
}
_POSITION: Mapping[str, type] = {
    **dict.fromkeys(("train_num", "first_epoch", "first_step", "n_epochs_done"), int),
    **dict.fromkeys(("epoch_num", "global_step", "optim_step_num"), int),
    **dict.fromkeys(("is_trained", "has_stepped", "is_stopped"), bool),
}
_RECORD: Mapping[str, Any] = {
    "name": str,
    "distribution": str | None,
    "version": str | None,
    "class": str,
    "enabled": bool,
}


def check_shape(path: Path, state: Mapping[str, Any]) -> None:
    """Check that the parts of a state have the types that a loop gives them.

    What lacks a part is left to the loop, which says so.

    Args:
        path: the directory of the checkpoint, for errors.
        state: the state.

    Raises:
        CheckpointError: they have not.
    """
    problems = _problems("state", state, {k: v for k, v in _PARTS.items() if k in state})
    if not problems and state.get("position") is not None:
        problems = _problems("position", state["position"], _POSITION)
    if not problems:
        records = state.get("manifest", [])
        problems = [p for record in records for p in _problems("manifest", record, _RECORD)]
        problems = problems or _nameless(state.get("components", {}), records)
    if not problems and _is_too_deep(state):
        problems = [f"its values are nested more than {_MAX_DEPTH} deep"]
    if problems:
        raise CheckpointError(
            f"{path} cannot be loaded, as no loop writes such a state: {printable(problems[0])}. "
            "Start the same script again with resume= and the path of another checkpoint"
        )


def _problems(what: str, value: Any, types: Mapping[str, Any]) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"its {what} holds a {type(value).__name__}"]
    return [
        f"its {what} has {name!r} of type {type(value[name]).__name__}"
        if name in value
        else f"its {what} lacks {name!r}"
        for name, type_ in types.items()
        if not isinstance(value.get(name, _PARTS), type_)
    ]


def _nameless(components: Mapping[Any, Any], records: list[Mapping[str, Any]]) -> list[str]:
    names = {record["name"] for record in records}
    return [f"its manifest lacks the component {n!r}" for n in components if n not in names]


def _is_too_deep(state: Any) -> bool:
    level = [state]
    for _ in range(_MAX_DEPTH):
        values = (v.values() if isinstance(v, Mapping) else v for v in level)
        level = [x for value in values for x in value if isinstance(x, Mapping | list | tuple)]
    return bool(level)
