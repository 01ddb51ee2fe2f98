"""Random generators that objects of a run hold, besides the global random numbers."""

from __future__ import annotations

import random
import sys
import types
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from ttl_core.arguments import user_stacklevel
from ttl_core.hooks.member import Member
from ttl_core.state.data_order import is_seeded, own_generators
from ttl_core.state.protocol import State, unwrapped
from ttl_core.state.sampler import SeededSamples

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

_MAX_DEPTH = 4
"""How deep attributes of attributes are followed, where they are no modules."""

_MAX_LENGTH = 100
"""How many items of a list or dict are followed."""

_PLAIN = frozenset({str, bytes, int, float, bool, type(None), torch.Tensor, torch.nn.Parameter})
"""Most of what is found, told by its type alone, as a walk is a part of every save."""

_LEAVES = (
    *(str, bytes, int, float, complex, type(None), torch.Tensor, type, types.ModuleType),
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType),
    *(torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.dtype, torch.device),
)
_DATA = ("train_data", "valid_data")
_NO_ROOTS = {"model", *_DATA, "hook", "batch", "scores", "loss", "metrics"}


def generator_state(value: Any) -> State | None:
    """Return the state of a random generator of Python, NumPy or torch; None for another value.

    Args:
        value: the value.

    Returns:
        The state, by the library's name, of types that a state of a loop may hold. The system's
        random numbers, of random.SystemRandom, have none.

    Example:
        >>> from ttl_core import generator_state
        >>> list(generator_state(torch.Generator())), generator_state("text")
        (['torch'], None)
    """
    return _state_of(value) if _is_generator(value) else None


def generator_states(loop: TrainTestLoop, members: Sequence[Member]) -> State:
    """Return the states of the generators that the objects of a run hold, by where they are.

    Args:
        loop: the loop.
        members: the members of its list.
    """
    names = {member.name: member.name for member in members}
    return {path: _state_of(generator) for path, generator in _found(loop, members, names).items()}


def generator_states_of_data(loop: TrainTestLoop, members: Sequence[Member]) -> State:
    """Return the part of `generator_states` that belongs to the data of a loop.

    Args:
        loop: the loop.
        members: the members of its list.
    """
    states = generator_states(loop, members)
    return {path: its for path, its in states.items() if path.startswith(_DATA)}


def restore_generator_states(
    loop: TrainTestLoop, members: Sequence[Member], states: State, names: Mapping[str, str]
) -> None:
    """Restore the generators that there are.

    Args:
        loop: the loop.
        members: the members of its list.
        states: what `generator_states` returned.
        names: the names in the states of those members that are there.
    """
    for path, generator in _found(loop, members, names).items():
        if path in states:
            _set_state_of(generator, states[path])


def warn_of_other_random_numbers(loop: TrainTestLoop) -> None:
    """Warn of data that draw random numbers which no state holds, in worker processes."""
    lines = _not_restorable(loop)
    if lines:
        warnings.warn(
            "a run that resumes may see other data than one that was not interrupted: "
            f"{'; '.join(lines)}",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def _not_restorable(loop: TrainTestLoop) -> list[str]:
    return [
        line
        for name in _DATA
        for path, loader in _loaders(name, getattr(loop, name))
        if loader.num_workers
        for line in _drawn_in_workers(path, loader, in_epochs=name == "train_data")
    ]


def _drawn_in_workers(path: str, loader: DataLoader[Any], *, in_epochs: bool) -> list[str]:
    """Return, in words, what the workers of a loader draw from that no state holds.

    Args:
        path: where the loader is.
        loader: the loader.
        in_epochs: whether a run may resume within an epoch of it.
    """
    if not (in_epochs or loader.persistent_workers):
        return []  # workers that are started for each epoch begin with a copy of what is here
    copied = _walk(f"{path}.dataset", loader.dataset, set())
    if copied:
        return [
            f"the workers of {path} draw from copies of {where}: draw from "
            "ttl_core.sample_generator(index) instead"
            for where in copied
        ]
    if in_epochs or is_seeded(loader) or not _may_draw(loader.dataset):
        return []
    return [
        f"the workers of {path} are persistent: if its {type(loader.dataset).__name__} "
        "draws random numbers, they continue from epoch to epoch. Write "
        "DataLoader(SeededSamples(dataset), ..., sampler=SeededSampler(dataset, "
        "shuffle=False)), or persistent_workers=False"
    ]


def _loaders(path: str, data: Any) -> Iterator[tuple[str, DataLoader[Any]]]:
    data = unwrapped(data)
    if isinstance(data, DataLoader):
        yield path, data
    elif isinstance(data, Mapping):
        for name, one in data.items():
            yield from _loaders(f"{path}[{name!r}]", one)


def _may_draw(dataset: Any) -> bool:
    """Return whether samples may draw random numbers that are not seeded by sample."""
    if isinstance(dataset, Subset):
        return _may_draw(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return any(map(_may_draw, dataset.datasets))
    known = (SeededSamples, TensorDataset, list, tuple, range, torch.Tensor)
    return not isinstance(dataset, known)


# -- finding them ---------------------------------------------------------------------------


def _found(
    loop: TrainTestLoop, members: Sequence[Member], names: Mapping[str, str]
) -> dict[str, Any]:
    roots: dict[str, Any] = {"model": loop.model}
    seen = {id(loop), id(loop.components)}
    for name in _DATA:
        data = getattr(loop, name)
        loaders = dict(_loaders(name, data))
        for path, loader in loaders.items():
            seen |= {id(loader), *map(id, own_generators(loader))}  # these are a part of the data
            roots[f"{path}.dataset"] = loader.dataset
            roots[f"{path}.sampler"] = loader.sampler
            roots[f"{path}.batch_sampler"] = loader.batch_sampler
        if not loaders:
            roots[name] = unwrapped(data)
    there = [member for member in members if member.name in names]
    roots |= {f"components.{names[member.name]}": member.component for member in there}
    variables = {k: v for k, v in vars(loop).items() if k[0] != "_" and k not in _NO_ROOTS}
    roots |= {f"loop.{name}": value for name, value in variables.items()}
    found: dict[str, Any] = {}
    for path, value in roots.items():
        found |= _walk(path, value, seen)
    return found


def _walk(path: str, value: Any, seen: set[int], depth: int = 0) -> dict[str, Any]:
    """Return the generators in a value, by path."""
    if id(value) in seen:
        return {}
    items: Any  # copies, as a thread of a component may change what is walked through
    if isinstance(value, dict):  # first what there is most of
        items = dict.copy(value).items() if len(value) <= _MAX_LENGTH else ()
    elif isinstance(value, list | tuple | deque):
        items = enumerate([*value]) if len(value) <= _MAX_LENGTH else ()
    elif isinstance(value, _LEAVES):
        return {}
    elif _is_generator(value):
        seen.add(id(value))
        return {path: value}
    elif isinstance(value, torch.nn.Module):
        own = {name: item for name, item in vars(value).copy().items() if name[0] != "_"}
        items = (own | value._modules).items()
    else:
        depth += 1
        if depth > _MAX_DEPTH:
            return {}
        items = {**(getattr(value, "__dict__", None) or {})}.items()
        if isinstance(value, partial):
            items = [*enumerate(value.args), *value.keywords.items(), ("func", value.func)]
    seen.add(id(value))
    found: dict[str, Any] = {}
    for name, item in items:
        if type(item) not in _PLAIN:
            found |= _walk(f"{path}.{name}", item, seen, depth)
    return found


def _is_generator(value: Any) -> bool:
    if isinstance(value, torch.Generator | random.Random):
        # the system's source of random numbers has no state
        return not isinstance(value, random.SystemRandom)
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(
        value, numpy.random.Generator | numpy.random.RandomState
    )


# -- their states ---------------------------------------------------------------------------


def _state_of(generator: Any) -> State:
    if isinstance(generator, torch.Generator):
        return {"torch": generator.get_state()}
    if isinstance(generator, random.Random):
        return {"python": generator.getstate()}
    if hasattr(generator, "bit_generator"):
        return {"numpy": _as_plain(generator.bit_generator.state)}
    return {"numpy": _as_plain(generator.get_state(legacy=False))}


def _set_state_of(generator: Any, state: State) -> None:
    if isinstance(generator, torch.Generator) and "torch" in state:
        generator.set_state(state["torch"])
    elif isinstance(generator, random.Random) and "python" in state:
        version, internal, gauss = state["python"]
        generator.setstate((version, tuple(internal), gauss))
    elif "numpy" in state and not isinstance(generator, torch.Generator | random.Random):
        if hasattr(generator, "bit_generator"):
            generator.bit_generator.state = state["numpy"]
        else:
            generator.set_state(state["numpy"])


def _as_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_plain(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
