"""The format of a state, which is checked before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttl_core.arguments import describe
from ttl_core.errors import StateError

VERSION = 1
"""The version of the format."""

_NUMBERS = (
    *("train_num", "first_epoch", "first_step", "n_epochs_done"),
    *("epoch_num", "global_step", "optim_step_num"),
)
_MAPPINGS = ("model", "variables", "metrics", "components", "random", "data", "environment")
_PARTS = {"version", "position", *_MAPPINGS, "manifest"}


def check_format(state: Any) -> None:
    """Check that a value is a state that a run can resume from.

    Args:
        state: the value.

    Raises:
        StateError: it is not.
    """
    if not isinstance(state, Mapping) or not state.keys() >= _PARTS:
        # not the tensors of a mapping
        what = f"a {type(state).__name__}" if state and isinstance(state, Mapping) else None
        raise StateError(
            f"{what or describe(state)} is not a state of a loop: load_state_dict() takes what "
            "state_dict() returned"
        )
    if state["version"] != VERSION:
        raise StateError(
            f"the state is of version {state['version']!r}, this ttl-core reads version {VERSION}. "
            "Use the version of ttl-core that wrote it"
        )
    position = state["position"]
    if position is None:
        raise StateError(
            "the state was not taken at a safe point, so no run can resume from it. It is there to "
            "inspect: take what you need, as in model.load_state_dict(state['model'])"
        )
    _check_types({name: (state[name], Mapping) for name in ("position", *_MAPPINGS)})
    _check_types({"manifest": (state["manifest"], list)})
    _check_types({f"position[{name!r}]": (position.get(name), int) for name in _NUMBERS})
    epoch = position.get("epoch")
    if epoch is not None:
        _check_types({"position['epoch']": (epoch, Mapping)})
        _check_types(
            {
                "position['epoch']['n_batches']": (epoch.get("n_batches"), int),
                "position['epoch']['order']": (epoch.get("order"), Mapping),
            }
        )


def _check_types(parts: Mapping[str, tuple[Any, type]]) -> None:
    for name, (value, expected) in parts.items():
        if not isinstance(value, expected):
            raise StateError(
                f"{name} of the state is {describe(value)}, but has to be of type "
                f"{expected.__name__}. It is not as state_dict() returned it"
            )
