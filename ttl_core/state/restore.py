"""Restoring the state of a run, when everything that it belongs to exists."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from ttl_core.arguments import user_stacklevel
from ttl_core.errors import StateError
from ttl_core.hooks.member import Member
from ttl_core.state.data_order import data_by_name, prepare_epochs, restore_generators
from ttl_core.state.environment import warn_of_another_environment
from ttl_core.state.gather import noting_component, public_variables
from ttl_core.state.generators import restore_generator_states
from ttl_core.state.hidden import load_hidden_state
from ttl_core.state.matching import match_components, match_variables, saved_names
from ttl_core.state.model import check_model, load_model
from ttl_core.state.optimizers import load_optimizer, memory_of
from ttl_core.state.parts import with_fitting_tensors, with_whole_tensors
from ttl_core.state.position import restore_end_of_train
from ttl_core.state.protocol import State, has_state, reading
from ttl_core.state.random_numbers import restore_random
from ttl_core.state.settings import Difference, NewSettings
from ttl_core.state.snapshot import snapshot
from ttl_core.state.versions import is_readable, upgraded_states, version_in

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop


def restore(
    loop: TrainTestLoop,
    members: Sequence[Member],
    state: State,
    ignore: Collection[str],
    changed: Collection[Difference] = (),
    new_settings: State | None = None,
    *,
    keep: bool = False,
) -> None:
    """Restore a state: model, optimizers, schedulers, the rest, and random numbers last.

    Args:
        loop: the loop.
        members: the members of its list.
        state: what `gather` returned.
        ignore: names of components and loop variables whose state may be missing or unused.
        changed: the settings of the script that are used in place of those of the state.
        new_settings: all settings of the script.
        keep: whether the state is used again, so that nothing may alias it.

    Raises:
        StateError: the state does not fit.
    """
    variables, components = matched(loop, members, state, ignore)
    if keep:
        state = _copy_for(variables, state)
    component_states = _states_for(loop, components, state)
    with reading("model"):
        load_model(loop.model, state["model"])
    _load_variables(loop, variables, state, NewSettings(variables, changed, new_settings or {}))
    with reading("metrics"):
        loop.metrics.clear()
        loop.metrics.update(state["metrics"])
    _load_components(components, component_states)
    with reading("data"):
        _restore_data(loop, state)
    with reading("environment"):
        warn_of_another_environment(state["environment"])
    with reading("random numbers"):
        for name, data in data_by_name(loop).items():
            restore_generators(data, state["data"][name])
        names = saved_names(members, state["manifest"], ignore)
        restore_generator_states(loop, members, state.get("generators", {}), names)
        if state["random"] is not None:
            restore_random(state["random"])


def matched(
    loop: TrainTestLoop, members: Sequence[Member], state: State, ignore: Collection[str]
) -> tuple[dict[str, Any], dict[str, Member]]:
    """Return the loop variables and the members that a state belongs to, by their names in it.

    Args:
        loop: the loop.
        members: the members of its list.
        state: what `gather` returned.
        ignore: names of components and loop variables whose state may be missing or unused.

    Raises:
        StateError: the state does not fit.
    """
    # the model first: where it does not fit, its optimizer does not either
    with reading("model"):
        check_model(loop.model, state["model"])
    with reading("list of loop variables"):
        variables = match_variables(loop, members, state, ignore)
    with reading("list of components"):
        components = _called(loop, match_components(members, state, ignore))
    return variables, components


def _copy_for(variables: Mapping[str, Any], state: State) -> State:
    """Return a state whose parts may be aliased by what is loaded from them.

    The model copies its part itself. That of an optimizer is copied into the memory which the
    optimizer has for it already.
    """
    with torch.no_grad():
        saved = {
            name: snapshot(its_state, memory_of(variables.get(name)))
            for name, its_state in state["variables"].items()
        }
    parts = ("components", "hidden", "data", "earlier")
    return {**state, **{k: snapshot(state[k]) for k in parts if k in state}, "variables": saved}


def _restore_data(loop: TrainTestLoop, state: State) -> None:
    under_way = None if state["position"]["epoch"] is None else loop.data
    for name, data in data_by_name(loop).items():
        prepare_epochs(data, state["data"][name], under_way)


def restore_for_testing(
    loop: TrainTestLoop, members: Sequence[Member], state: State, ignore: Collection[str]
) -> None:
    """Restore the model and the components, for a test before training resumes."""
    check_model(loop.model, state["model"])
    components = _called(loop, match_components(members, state, ignore))
    component_states = _states_for(loop, components, state)
    load_model(loop.model, state["model"])
    # a copy, as it is loaded again after the components may have changed it
    _load_components(components, snapshot(component_states))


def state_of_component(
    loop: TrainTestLoop,
    members: Sequence[Member],
    state: State,
    ignore: Collection[str],
    component: object,
) -> State | None:
    """Return a copy of the state that a component will be given; None if there is none.

    Args:
        loop: the loop.
        members: the members of its list.
        state: what `gather` returned.
        ignore: names of components and loop variables whose state may be missing or unused.
        component: the component.
    """
    names = saved_names(members, state["manifest"], ignore)
    for member in members:
        name = names.get(member.name, "")
        is_it = member.component is component and name in state["components"]
        if is_it and is_readable(member, version_in(state, name)):
            found: State = snapshot(_states_for(loop, {name: member}, state)[name])
            return found
    return None


def restore_skipped(
    loop: TrainTestLoop, members: Sequence[Member], state: State, train_num: int
) -> None:
    """Restore what a train() call that is skipped had left, as far as a later state has it.

    Args:
        loop: the loop.
        members: the members of its list.
        state: what `gather` returned, in a later call.
        train_num: the number of the call.
    """
    try:
        check_model(loop.model, state["model"])
        load_model(loop.model, state["model"])
    except StateError as error:
        # it may be changed before the next train(), as a head for another task is
        warnings.warn(
            f"train() number {train_num} is skipped, as the loaded state was taken later, but "
            f"what follows it sees the model as it is now: {error}",
            UserWarning,
            stacklevel=user_stacklevel(),
        )
    classes = {record["name"]: record["class"] for record in state["manifest"]}
    names = saved_names(members, state["manifest"])
    there = {
        names[member.name]: member
        for member in members
        if has_state(member.component)
        and not loop._manager.is_left_out(member)
        and names.get(member.name) in state["components"]
        and classes[names[member.name]] == member.record()["class"]
        and is_readable(member, version_in(state, names[member.name]))
    }
    _load_components(there, snapshot(_states_for(loop, there, state)))
    restore_end_of_train(loop, state, train_num)


def _load_variables(
    loop: TrainTestLoop, variables: Mapping[str, Any], state: State, new: NewSettings
) -> None:
    saved, structure = state["variables"], state.get("structure", {})
    for name, value in variables.items():
        with reading(f"loop variable {name!r}"):
            if isinstance(value, Optimizer) and "param_groups" in saved[name]:
                load_optimizer(value, saved[name], structure.get(name), loop.model, state["model"])
            elif name not in new.replayed:
                value.load_state_dict(with_whole_tensors(saved[name]))
    new.apply(saved)
    named = public_variables(loop)
    for name, hidden in state.get("hidden", {}).items():
        if has_state(named.get(name)):
            with reading(f"loop variable {name!r}"):
                load_hidden_state(named[name], with_whole_tensors(hidden))


def _states_for(loop: TrainTestLoop, components: Mapping[str, Member], state: State) -> State:
    """Return the states of components in the versions and with the tensors that these read."""
    fitting = {n: with_fitting_tensors(state["components"][n], loop.model) for n in components}
    return upgraded_states(components, {**state, "components": fitting})


def _called(loop: TrainTestLoop, members: Mapping[str, Member]) -> dict[str, Member]:
    """Return those members that belong to this process of a group."""
    return {n: member for n, member in members.items() if not loop._manager.is_left_out(member)}


def _load_components(members: Mapping[str, Member], states: State) -> None:
    for name, member in members.items():
        with noting_component(member, "load_state_dict"):
            member.component.load_state_dict(states[name])
