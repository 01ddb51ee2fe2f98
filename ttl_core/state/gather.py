"""Collection of the state of a run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from ttl_core.arguments import user_stacklevel
from ttl_core.components.stateful import half_of_pair
from ttl_core.errors import StateError
from ttl_core.hooks.member import Member
from ttl_core.state.accepted import check_accepted
from ttl_core.state.data_order import states_between_epochs
from ttl_core.state.environment import environment
from ttl_core.state.format import VERSION
from ttl_core.state.generators import generator_states
from ttl_core.state.hidden import hidden_state
from ttl_core.state.protocol import State, has_state
from ttl_core.state.random_numbers import random_state

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop


def gather(
    loop: TrainTestLoop,
    members: Sequence[Member],
    stateful: Mapping[str, Any],
    position: State | None,
) -> State:
    """Return the state of a loop, with its live tensors.

    Args:
        loop: the loop.
        members: the members of its list.
        stateful: its variables that have state, by name.
        position: the position of the run; None where no run can resume.

    Raises:
        StateError: something in it is of a type that `torch.load(weights_only=True)` refuses.
    """
    components, versions = {}, {}
    for member in members:
        if has_state(member.component) and not loop._manager.is_left_out(member):
            with noting_component(member, "state_dict"):
                components[member.name] = member.component.state_dict()
            versions[member.name] = member.component.state_version
    variables = {name: value.state_dict() for name, value in stateful.items()}
    hidden = {name: hidden_state(stateful[name]) for name, state in variables.items() if not state}
    variables = {name: its_state for name, its_state in variables.items() if its_state}
    state: State = {
        "version": VERSION,
        "position": position,
        "model": loop.model.state_dict(),
        "variables": variables,
        "hidden": {name: its_state for name, its_state in hidden.items() if its_state},
        "metrics": dict(loop.metrics),
        "components": components,
        "state_versions": versions,
        "random": random_state(),
        "generators": generator_states(loop, members),
        "data": states_between_epochs(loop),
        "environment": environment(),
        "manifest": loop.manifest(),
    }
    _check_gathered(state, members)
    return state


def _check_gathered(state: State, members: Sequence[Member]) -> None:
    """Check that a run can resume from what was gathered, after it was written to a file.

    Args:
        state: the state.
        members: the members of the list.

    Raises:
        StateError: something in it is of a type that `torch.load(weights_only=True)` refuses, or
            that the model does not load.
    """
    for member in members:
        if member.name in state["components"]:
            check_accepted(state["components"][member.name], member.name, str(member))
    for kind in ("variables", "hidden"):
        for name, value in state[kind].items():
            check_accepted(value, name, f"the loop variable {name!r}")
    for name, tensor in state["model"].items():
        if isinstance(tensor, torch.Tensor) and not is_lazy(tensor) and tensor.is_nested:
            raise StateError(
                f"the model has state that its load_state_dict() refuses: model.{name} is a nested "
                "tensor. Keep it as a padded one, or leave it out of its state (persistent=False)"
            )
    for name in ("model", "metrics", "data", "position"):
        is_lazy_yet = name == "model" and state["position"] is None
        check_accepted(state[name], name, f"the {name}", may_be_lazy=is_lazy_yet)


def public_variables(loop: TrainTestLoop) -> dict[str, Any]:
    """Return the loop variables by name, those of `optimizers` one by one."""
    found = {name: value for name, value in vars(loop).items() if not name.startswith("_")}
    for i, optimizer in enumerate(vars(loop)["_optimizers"]):
        found[f"optimizers.{i}"] = optimizer
    return found


def stateful_variables(loop: TrainTestLoop, members: Sequence[Member]) -> dict[str, Any]:
    """Return the loop variables that have state, each object once.

    Args:
        loop: the loop.
        members: the members of its list, whose components are no variables.
    """
    return {n: v for n, v in _candidates(loop, members).items() if has_state(v)}


def warn_of_half_pairs(loop: TrainTestLoop, members: Sequence[Member]) -> None:
    """Warn of loop variables that have one of the two methods of state, and so are not saved.

    Args:
        loop: the loop.
        members: the members of its list, whose components are no variables.
    """
    lines = []
    for name, value in _candidates(loop, members).items():
        half = half_of_pair(value)
        if half is not None:
            there, missing = half
            lines.append(f"{name!r}, a {type(value).__name__}, has {there}() but no {missing}()")
    if lines:
        warnings.warn(
            "loop variables are part of a state if they have both methods of state. Not saved: "
            f"{'; '.join(lines)}",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def _candidates(loop: TrainTestLoop, members: Sequence[Member]) -> dict[str, Any]:
    """Return the loop variables that may have state, each object once."""
    seen = {id(value) for value in (loop.model, loop.train_data, loop.valid_data, loop.data)}
    seen |= {id(member.component) for member in members}
    found: dict[str, Any] = {}
    for name, value in public_variables(loop).items():
        if name != "hook" and not isinstance(value, type) and id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found


@contextlib.contextmanager
def noting_component(member: Member, method: str) -> Iterator[None]:
    """Attribute an exception inside a with block to a method of a component.

    Args:
        member: the member of the component.
        method: the name of the method.
    """
    try:
        yield
    except Exception as error:
        error.add_note(f"ttl: raised by {member} in {method}")
        raise
