"""The format of a state, which is checked before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttl_core.arguments import describe
from ttl_core.errors import StateError

VERSION = 1
"""The version of the format."""

_MAPPINGS = ("model", "variables", "metrics", "components", "random", "data", "environment")
_PARTS = {"version", "position", *_MAPPINGS, "manifest"}
_POSITION: Mapping[str, type] = {
    **dict.fromkeys(("train_num", "first_epoch", "first_step", "n_epochs_done"), int),
    **dict.fromkeys(("epoch_num", "global_step", "optim_step_num"), int),
    **dict.fromkeys(("is_trained", "has_stepped", "is_stopped"), bool),
}
_EPOCH: Mapping[str, type] = {"n_batches": int, "order": Mapping}
_RECORD: Mapping[str, Any] = {
    "name": str,
    "distribution": str | None,
    "version": str | None,
    "class": str,
    "enabled": bool,
}
_MAX_DEPTH = 200  # of nested values; Python fails at about a thousand


def check_state(state: Any, *, allow_unsafe: bool = False) -> None:
    """Check that a value is a state as `TrainTestLoop.state_dict()` returns it.

    It is for components that read states from files: nothing in them can be relied on, and this
    looks at all that tells where a run was. Whether the state fits a loop is checked when it is
    resumed.

    Args:
        state: the value.
        allow_unsafe: whether it may be a state from which no run can resume.

    Raises:
        StateError: it is not.

    Example:
        >>> from ttl_core import check_state
        >>> check_state({"model": {}})
        Traceback (most recent call last):
        ...
        ttl_core.errors.StateError: a dict is not a state of a loop: load_state_dict() takes what \
state_dict() returned
    """
    if not isinstance(state, Mapping) or not state.keys() >= _PARTS:
        # not the tensors of a mapping
        what = f"a {type(state).__name__}" if isinstance(state, Mapping) and state else None
        raise StateError(
            f"{what or describe(state)} is not a state of a loop: load_state_dict() takes what "
            "state_dict() returned"
        )
    if state["version"] != VERSION:
        raise StateError(
            f"the state is of version {describe(state['version'])}, this ttl-core reads version "
            f"{VERSION}. Use the version of ttl-core that wrote it"
        )
    position = state["position"]
    if position is None and not allow_unsafe:
        raise StateError(
            "the state was not taken at a safe point, so no run can resume from it. It is there to "
            "inspect: take what you need, as in model.load_state_dict(state['model'])"
        )
    _check_types("", state, {**dict.fromkeys(_MAPPINGS, Mapping), "manifest": list})
    if position is not None:
        _check_types("position", position, _POSITION)
        if position.get("epoch") is not None:
            _check_types("position['epoch']", position["epoch"], _EPOCH)
    versions = state.get("state_versions", {})  # not in states of older versions of ttl-core
    _check_types("", {"state_versions": versions}, {"state_versions": Mapping})
    _check_types("state_versions", versions, dict.fromkeys(versions, int))
    for i, record in enumerate(state["manifest"]):
        _check_types(f"manifest[{i}]", record, _RECORD)
    nameless = state["components"].keys() - {record["name"] for record in state["manifest"]}
    if nameless:
        raise _error(
            f"manifest of the state lacks the component {describe(min(nameless, key=str))}"
        )
    if _is_too_deep(state):
        raise _error(f"values of the state are nested more than {_MAX_DEPTH} deep")


def _check_types(part: str, values: Any, types: Mapping[str, Any]) -> None:
    """Check the types of what a part of a state holds, "" being the state itself."""
    if not isinstance(values, Mapping):
        raise _error(f"{part} of the state is {describe(values)}, but has to be of type Mapping")
    for name, expected in types.items():
        value = values.get(name)
        if not isinstance(value, expected):
            what = f"{part}[{name!r}]" if part else name
            type_name = getattr(expected, "__name__", str(expected))
            raise _error(
                f"{what} of the state is {describe(value)}, but has to be of type {type_name}"
            )


def _error(problem: str) -> StateError:
    return StateError(f"{problem}. It is not as state_dict() returned it")


def _is_too_deep(state: Any) -> bool:
    level = [state]
    for _ in range(_MAX_DEPTH):
        values = (v.values() if isinstance(v, Mapping) else v for v in level)
        level = [x for value in values for x in value if isinstance(x, Mapping | list | tuple)]
    return bool(level)
