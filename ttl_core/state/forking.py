"""Forking: a second loop in the same state, which shares nothing that either changes."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import dataclasses
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from ttl_core.arguments import did_you_mean
from ttl_core.components.component import Item, LoopComponent, own_name
from ttl_core.components.members import spec_of
from ttl_core.errors import ArgumentError, RunError, StateError
from ttl_core.hooks.member import Member
from ttl_core.shards import is_sharded
from ttl_core.state.generators import generator_states_of_data, restore_generator_states
from ttl_core.state.position import OF_BATCH, Stage, is_between_steps
from ttl_core.state.protocol import DataWrapper, State, has_state
from ttl_core.state.random_numbers import random_state, restore_random
from ttl_core.state.snapshot import snapshot

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

_IMMUTABLE = (
    *(type(None), bool, int, float, complex, str, bytes, PurePath, type, torch.dtype),
    *(torch.device, types.FunctionType, types.BuiltinFunctionType),
)


def fork(loop: TrainTestLoop, without: Collection[str]) -> TrainTestLoop:
    """Return a second loop in the state of a loop. See `TrainTestLoop.fork`."""
    members = loop._resumption.members()
    names = [member.name for member in members]
    for name in without:
        if name not in names:
            raise ArgumentError(
                f"fork(without=...) names {name!r}, which is not in the list. "
                f"{did_you_mean(name, names)}The components are: {', '.join(names)}"
            )
    _check_can_fork(loop)
    random_numbers = RandomNumbers(loop)
    memo: dict[int, Any] = {}
    try:
        model = copy.deepcopy(loop.model, memo)
    except Exception as error:
        raise StateError(
            f"the loop cannot be forked, as its model cannot be copied: {type(error).__name__}: "
            f"{error}. copy.deepcopy(loop.model) has to work"
        ) from error
    data = [_copy_of_data(one, memo) for one in (loop.train_data, loop.valid_data)]
    made = [(member, _made_again(member, memo)) for member in members if member.name not in without]
    there = [(member, item) for member, item in made if item is not None]
    other = _new_loop(loop, model, [item for _, item in there], *data)
    _copy_variables(loop, other, memo)
    for i, (member, _) in enumerate(there):
        if not member.is_enabled:
            other.components.disable(other.components.names()[i])
    left_out = set(names) - set(other.components.names())
    _set_state(loop, other, [member for member, _ in there], left_out)
    other._resumption.random_numbers = random_numbers
    random_numbers.restore(loop)
    return other


def _new_loop(loop: TrainTestLoop, *arguments: Any) -> TrainTestLoop:
    try:
        return type(loop)(*arguments)
    except TypeError as error:
        raise StateError(
            f"the loop cannot be forked, as a {type(loop).__qualname__} is not created from "
            f"(model, components, train_data, valid_data): {error}. Let its __init__ take these"
        ) from error


def _copy_variables(loop: TrainTestLoop, other: TrainTestLoop, memo: dict[int, Any]) -> None:
    """Give a fork what a script or a component has set as a variable of its loop.

    What belongs to the batch is left out, and what components create again because it has state,
    such as schedulers.
    """
    for name, value in vars(loop).items():
        if name.startswith("_") or name in vars(other) or name in OF_BATCH:
            continue
        if has_state(value) and not isinstance(value, torch.nn.Module | torch.optim.Optimizer):
            continue
        # a component that sets one which cannot be copied will set it again
        with contextlib.suppress(Exception):
            setattr(other, name, value if _is_immutable(value) else copy.deepcopy(value, memo))


def _check_can_fork(loop: TrainTestLoop) -> None:
    if not (is_between_steps(loop) or loop._stage in (Stage.IDLE, Stage.STARTING)):
        raise RunError(
            "fork() was called inside an epoch, where components may be halfway through a batch. "
            "Call it in on_safe_point, in on_train_begin, or outside of runs"
        )
    if any(map(is_sharded, loop.model.parameters())):
        raise StateError(
            "the loop cannot be forked, as each process of its group has only a part of the model, "
            "which cannot be copied. Fork it where each has the whole model: in one process, or "
            "with ddp in place of fsdp"
        )


def _set_state(
    loop: TrainTestLoop, other: TrainTestLoop, members: Sequence[Member], left_out: set[str]
) -> None:
    """Give a fork the state of its loop."""
    own, its = loop._resumption, other._resumption
    its.progress.train_num = own.progress.train_num
    if loop.run_desc == "train":  # its train() is the one under way
        its.progress.train_num -= 1
    for name in ("epoch_num", "global_step", "optim_step_num"):
        setattr(other, name, getattr(loop, name))
    other.metrics = dict(loop.metrics)
    if loop._stage is Stage.SAFE_POINT:
        its.load(loop.state_dict(), left_out, "saved")
        return
    for member, component in zip(members, other.components, strict=True):
        if has_state(member.component):
            state = snapshot(member.component.state_dict())
            component.load_state_dict(state)  # type: ignore[attr-defined]
    own.copy_loaded(its, left_out)


class RandomNumbers:
    """The random numbers of a fork, which its runs use in place of the global ones.

    Args:
        loop: the loop that is forked, with whose random numbers it begins.
    """

    def __init__(self, loop: TrainTestLoop) -> None:
        self._states = _random_states(loop)

    def restore(self, loop: TrainTestLoop) -> None:
        """Set all random numbers to these."""
        in_data, of_process = self._states
        restore_generator_states(loop, [], in_data, {})
        restore_random(of_process)

    def exchange(self, loop: TrainTestLoop) -> None:
        """Exchange these for those that are in use, when a run begins and when it ends."""
        in_use = _random_states(loop)
        self.restore(loop)
        self._states = in_use


def _random_states(loop: TrainTestLoop) -> tuple[State, State]:
    """Return the random numbers that a fork shares with its loop: of data sets, and global."""
    return generator_states_of_data(loop, []), random_state()


# -- components -----------------------------------------------------------------------------


def _made_again(member: Member, memo: dict[int, Any]) -> Item | None:
    """Return a component like that of a member, or its spec; None if it is left out of forks."""
    component: Any = member.component
    if callable(getattr(component, "fork", None)):
        made = component.fork()
        if made is not None and (made is component or not isinstance(made, LoopComponent)):
            raise StateError(
                f"{member} cannot be forked: its fork() returned {made!r}, but has to return "
                "another component like it, or None to be left out of forks"
            )
        return None if made is None else _named(made, member)
    spec = spec_of(component)
    if spec is not None:
        try:
            config = copy.deepcopy(dict(spec.config), memo)
        except Exception as error:
            raise _not_forkable(member, f"its configuration cannot be copied ({error})") from error
        return dataclasses.replace(spec, name=_base(member), config=config, is_enabled=True)
    attributes = [*vars(component), *copyreg._slotnames(type(component))]  # type: ignore[attr-defined]
    for name in attributes:
        if not _is_immutable(getattr(component, name, None)):
            problem = f"it was created by hand, and its attribute {name!r} may change"
            raise _not_forkable(member, problem)
    return _named(copy.copy(component), member)


def _base(member: Member) -> str:
    """Return the name of a member without the number that its list adds."""
    return member.name.partition("#")[0]


def _named(component: Any, member: Member) -> LoopComponent:
    if own_name(component) != _base(member):
        component.name = _base(member)
    made: LoopComponent = component
    return made


def _not_forkable(member: Member, problem: str) -> StateError:
    return StateError(
        f"{member} cannot be forked: {problem}. Give its class a method `fork(self)` that returns "
        "a new component with the same configuration, or None to be left out of forks; or fork "
        f"without it: without=({member.name!r},)"
    )


def _is_immutable(value: Any) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_immutable, value))
    return isinstance(value, _IMMUTABLE) and not getattr(value, "__closure__", None)


# -- data -----------------------------------------------------------------------------------


def _copy_of_data(data: Any, memo: dict[int, Any]) -> Any:
    """Return data like others, over the same samples, with a position of their own."""
    if isinstance(data, Mapping) and not has_state(data):
        return {name: _copy_of_data(one, memo) for name, one in data.items()}
    if isinstance(data, DataLoader):
        for name, value in vars(data).items():
            if name not in ("sampler", "batch_sampler", "generator"):
                memo[id(value)] = None if name == "_iterator" else value
        return copy.deepcopy(data, memo)
    if has_state(data):
        return copy.deepcopy(data, memo)
    if hasattr(data, "wrapped_data") and isinstance(data, DataWrapper):
        wrapper = copy.copy(data)
        wrapper.wrapped_data = _copy_of_data(data.wrapped_data, memo)
        return wrapper
    if hasattr(data, "__next__"):
        raise StateError(
            f"the loop cannot be forked, as its data are a {type(data).__name__}, of which both "
            "would take batches. Give a list, a DataLoader, or an object whose __iter__ starts "
            "again"
        )
    return data
