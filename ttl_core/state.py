"""What a run can go on from: gathering it, checking it, and putting it back."""

from __future__ import annotations

import contextlib
import io
import itertools
import platform
import random
import sys
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ttl_core.arguments import did_you_mean, user_stacklevel
from ttl_core.data_order import (
    Order,
    has_state,
    prepare_epochs,
    restore_generators,
    state_between_epochs,
    state_in_epoch,
)
from ttl_core.errors import ArgumentError, RunError, StateError
from ttl_core.manager import Member

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

State = dict[str, Any]
VERSION = 1


# -- where a run stands ---------------------------------------------------------------------


@dataclass
class Place:
    """Say where a train() stands, besides what the loop variables count.

    Attributes:
        train_num: which train() of its loop it is, from 1.
        first_epoch: what `epoch_num` was when it began.
        first_step: what `global_step` was when it began.
        n_epochs_done: how many of its epochs have ended.
        is_trained: whether the epoch under way has had its training.
        has_stepped: whether the last batch, if there was one, made a step.
    """

    train_num: int = 0
    first_epoch: int = 0
    first_step: int = 0
    n_epochs_done: int = 0
    is_trained: bool = False
    has_stepped: bool = True


_COUNTS = ("epoch_num", "global_step", "optim_step_num")


def position_of(loop: TrainTestLoop, place: Place, order: Order | None, is_stopped: bool) -> State:
    """Return where a run stands, at a safe point or after its last one."""
    counts = {name: getattr(loop, name) for name in _COUNTS}
    position = {**asdict(place), **counts, "epoch": None, "is_stopped": is_stopped}
    if loop.is_training:  # inside an epoch, a safe point follows a step
        position["has_stepped"] = True
        position["epoch"] = state_in_epoch(loop.data, order or {}, loop.batch_num + 1)
    return position


def begin(loop: TrainTestLoop, place: Place, loaded: State | None) -> None:
    """Count from where a train() begins, also where those before it were left out."""
    if loaded is not None and loaded["position"]["train_num"] == place.train_num:
        position = loaded["position"]
        loop.epoch_num, loop.global_step = position["first_epoch"], position["first_step"]
    place.first_epoch, place.first_step = loop.epoch_num, loop.global_step


def go_to(loop: TrainTestLoop, place: Place, position: State) -> None:
    """Put a run where another one stood."""
    for field in fields(place):
        setattr(place, field.name, position[field.name])
    for name in _COUNTS:
        setattr(loop, name, position[name])


def check_reach(position: State, train_num: int, n_epochs: int | None, n_steps: int | None) -> None:
    """Check that a train() comes to where a state was taken.

    Raises:
        RunError: it is a later train().
        ArgumentError: it has fewer epochs or steps than that.
    """
    if position["train_num"] < train_num:
        raise RunError(
            f"the state was taken in train() number {position['train_num']} of its loop, but this "
            f"is number {train_num}. Load it before that one, in a new loop"
        )
    is_begun = position["epoch"] is not None or position["is_trained"]
    reached = {
        "n_epochs": (n_epochs, position["n_epochs_done"] + is_begun, "epochs"),
        "n_optim_steps": (n_steps, position["optim_step_num"], "optimization steps"),
    }
    for name, (asked, done, what) in reached.items():
        if asked is not None and asked < done and not position["is_stopped"]:
            raise ArgumentError(
                f"{name} is {asked}, but the state was taken after {done} {what} of this train() "
                "had begun, and they count from its beginning"
            )


# -- gathering ------------------------------------------------------------------------------


def gather(loop: TrainTestLoop, members: Sequence[Member], position: State | None) -> State:
    """Return the state of a loop. Its tensors are the live ones.

    Args:
        loop: the loop.
        members: the members of its list.
        position: where the run stands; None where no run can go on.

    Raises:
        StateError: something in it is of a type that `torch.load(weights_only=True)` refuses.
    """
    components = {}
    for member in members:
        if has_state(member.component):
            with _blaming(member, "state_dict"):
                components[member.name] = member.component.state_dict()
    variables = {name: value.state_dict() for name, value in _variables(loop, members).items()}
    variables = {name: its_state for name, its_state in variables.items() if its_state}
    state: State = {
        "version": VERSION,
        "position": position,
        "model": loop.model.state_dict(),
        "variables": variables,
        "metrics": {name: _plain_number(value) for name, value in loop.metrics.items()},
        "components": components,
        "random": _random_state(),
        "data": {
            name: state_between_epochs(data)
            for name, data in (("train", loop.train_data), ("valid", loop.valid_data))
        },
        "environment": _environment(),
        "manifest": loop.manifest(),
    }
    for member in members:
        if member.name in components:
            _check(components[member.name], member.name, str(member))
    for name, value in variables.items():
        _check(value, name, f"the loop variable {name!r}")
    for name in ("model", "metrics", "data", "position"):
        _check(state[name], name, f"the {name}")
    return state


def _variables(loop: TrainTestLoop, members: Sequence[Member]) -> dict[str, Any]:
    """Return the loop variables that have state, each object once."""
    seen = {id(value) for value in (loop.model, loop.train_data, loop.valid_data, loop.data)}
    seen |= {id(member.component) for member in members}
    found: dict[str, Any] = {}
    for name, value in vars(loop).items():
        is_public = not name.startswith("_") and name != "hook"
        if is_public and not isinstance(value, type) and id(value) not in seen and has_state(value):
            seen.add(id(value))
            found[name] = value
    return found


def _plain_number(value: Any) -> Any:
    """Return a number of another library, as NumPy's are, as one of Python's."""
    if isinstance(value, torch.Tensor) or not hasattr(value, "item"):
        return value
    return value.item() if getattr(value, "size", 1) == 1 else value


def snapshot(state: Any, into: Any = None) -> Any:
    """Return a copy that nothing which trains on changes, with tensors on the CPU.

    Tensors that are one and the same, as tied weights are, are so in the copy too.

    Args:
        state: what to copy, a nested value.
        into: an earlier copy that is no longer needed, whose memory is used where it fits.
    """
    copies: dict[Any, torch.Tensor] = {}
    taken: set[int] = set()  # memory of the earlier copy that is in use again
    devices: set[torch.device] = set()

    def copied(value: Any, into: Any) -> Any:
        if isinstance(value, torch.Tensor):
            same = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
            is_simple = value.layout is torch.strided and not (value.is_conj() or value.is_neg())
            key = same if is_simple and value.numel() else id(value)
            if key not in copies:
                copies[key] = _copy_of(value.detach(), None if id(into) in taken else into)
                taken.add(id(copies[key]))
                devices.add(value.device)
            return copies[key]
        if type(value) in (dict, OrderedDict):
            by_key = into if isinstance(into, dict) else {}
            copy = type(value)((key, copied(item, by_key.get(key))) for key, item in value.items())
            if type(copy) is OrderedDict:  # with the versions of modules, in a model's state
                vars(copy).update(deepcopy(vars(value)))
            return copy
        if type(value) in (list, tuple):
            in_order = into if isinstance(into, list | tuple) else ()
            pairs = itertools.zip_longest(value, in_order[: len(value)])
            return type(value)(copied(item, before) for item, before in pairs)
        return deepcopy(value)

    result = copied(state, into)
    for device in devices:
        if device.type in ("cuda", "xpu"):  # copies to the host may be on their way
            getattr(torch, device.type).synchronize(device)
    return result


def _copy_of(tensor: torch.Tensor, into: object) -> torch.Tensor:
    if tensor.layout is not torch.strided or type(tensor) is not torch.Tensor:
        return tensor.to("cpu", copy=True)
    if not isinstance(into, torch.Tensor) or (into.shape, into.stride(), into.dtype) != (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
    ):
        into = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    into.copy_(tensor, non_blocking=True)
    return into


# -- what may be in it ----------------------------------------------------------------------

_PLAIN = {type(None), bool, float, complex, str, torch.Tensor, torch.nn.Parameter}
_CONTAINERS = {dict, OrderedDict, list, tuple}
_ADVICE = {
    "numpy.ndarray": "torch.from_numpy(...)",
    "torch._C.Generator": "its get_state()",
    "collections.deque": "list(...)",
    "collections.defaultdict": "dict(...)",
}


def _check(value: Any, path: str, who: str) -> None:
    """Check that `torch.load(weights_only=True)` accepts a value.

    Raises:
        StateError: it does not; the message gives the path to the leaf, its type and the fix.
    """
    for leaf_path, leaf in _leaves(value, path):
        if not _is_accepted(leaf):
            cls = type(leaf)
            raise StateError(
                f"{who} has state that torch.load(weights_only=True) refuses: {leaf_path} is "
                f"{cls.__module__}.{cls.__qualname__}: return {_advice(leaf)}"
            )


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what is in a nested value, with the path to each."""
    if type(value) not in _CONTAINERS:
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _is_plain(key):
                yield f"the key {key!r} of {path}", key
            yield from _leaves(item, f"{path}.{key}")
    else:
        for i, item in enumerate(value):
            if not _is_plain(item):
                yield from _leaves(item, f"{path}.{i}")


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is int and value.bit_length() < 1024)


def _is_accepted(value: Any) -> bool:
    if _is_plain(value):
        return True
    stream = io.BytesIO()
    try:
        torch.save(value, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True)
    except Exception:
        return False
    return True


def _advice(value: Any) -> str:
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}"
    if name in _ADVICE:
        return _ADVICE[name]
    if hasattr(value, "__fspath__"):
        return "str(...)"
    if hasattr(value, "item"):  # a scalar of NumPy
        return f"{type(value.item()).__name__}(...)"
    if hasattr(value, "__dataclass_fields__"):
        return "dataclasses.asdict(...)"
    if hasattr(cls, "__members__"):
        return "its value"
    for base in (dict, list, tuple, str, int, float):
        if isinstance(value, base):
            return f"{base.__name__}(...)"
    return "plain Python values and tensors, and make it anew from them when they are loaded"


# -- putting it back ------------------------------------------------------------------------


_PARTS = {
    *("version", "position", "model", "variables", "metrics", "components", "random", "data"),
    *("environment", "manifest"),
}


def check_kind(state: Any) -> None:
    """Check that a value is the state of a run that can go on.

    Raises:
        StateError: it is not.
    """
    if not isinstance(state, Mapping) or not state.keys() >= _PARTS:
        raise StateError(
            f"{_short(state)} is no state of a loop: load_state_dict() takes what state_dict() "
            "returned"
        )
    if state["version"] != VERSION:
        raise StateError(
            f"the state is of version {state['version']!r}, this ttl-core reads version {VERSION}. "
            "Use the version of ttl-core that wrote it"
        )
    if state["position"] is None:
        raise StateError(
            "the state was not taken at a safe point, so no run can go on from it. It is there to "
            "be looked into: take what you need, as model.load_state_dict(state['model']) does"
        )


def restore(
    loop: TrainTestLoop, members: Sequence[Member], state: State, ignore: Collection[str]
) -> None:
    """Put a state back: model, optimizers, schedulers, the rest, and random numbers last.

    Args:
        loop: the loop.
        members: the members of its list.
        state: what `gather` returned.
        ignore: names of components and loop variables whose state may be missing, or left over.

    Raises:
        StateError: the state does not fit.
    """
    # the model first: where it does not fit, its optimizer does not either
    _check_model(loop, state["model"])
    variables = _matching_variables(loop, members, state["variables"], ignore)
    components = _matching_components(members, state, ignore)
    _load_model(loop, state)
    for name, value in variables.items():
        value.load_state_dict(state["variables"][name])
    loop.metrics.clear()
    loop.metrics.update(state["metrics"])
    _load_components(components, state)
    if state["position"]["epoch"] is None:  # else they are under way
        prepare_epochs(loop.train_data, state["data"]["train"])
    prepare_epochs(loop.valid_data, state["data"]["valid"])
    _warn_of_another_environment(state["environment"])
    _restore_random(loop, state)


def restore_for_testing(
    loop: TrainTestLoop, members: Sequence[Member], state: State, ignore: Collection[str]
) -> None:
    """Put back the model and what components hold, for a test before training goes on."""
    _check_model(loop, state["model"])
    components = _matching_components(members, state, ignore)
    _load_model(loop, state)
    _load_components(components, state)


def _load_components(members: Mapping[str, Member], state: State) -> None:
    for name, member in members.items():
        with _blaming(member, "load_state_dict"):
            member.component.load_state_dict(state["components"][name])


@contextlib.contextmanager
def _blaming(member: Member, method: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"ttl: raised by {member} in {method}")
        raise


def _load_model(loop: TrainTestLoop, state: State) -> None:
    try:
        loop.model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise StateError(f"the model does not fit the state: {error}") from error


def _check_model(loop: TrainTestLoop, saved: State) -> None:
    own = loop.model.state_dict()
    problems = [f"it has {name}, the state has not" for name in own.keys() - saved.keys()]
    problems += [f"the state has {name}, it has not" for name in saved.keys() - own.keys()]
    for name in own.keys() & saved.keys():
        shapes = [getattr(tensors[name], "shape", None) for tensors in (own, saved)]
        if shapes[0] != shapes[1] and not is_lazy(own[name]):
            problems.append(f"{name} has {_sizes(shapes[0])}, in the state {_sizes(shapes[1])}")
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise StateError(
            f"the model does not fit the state: {'; '.join(sorted(problems)[:5])}{more}. Make the "
            "model that the state was taken of"
        )


def _sizes(shape: torch.Size | None) -> str:
    return "no shape" if shape is None else f"shape {tuple(shape)}"


def _matching_variables(
    loop: TrainTestLoop, members: Sequence[Member], saved: State, ignore: Collection[str]
) -> dict[str, Any]:
    """Return the loop variables to load, optimizers and then schedulers first."""
    there = _variables(loop, members)
    found: dict[str, Any] = {}
    for name in saved:
        value = vars(loop).get(name)
        if has_state(value):
            _check_groups(name, value, saved[name])
            found[name] = value
        elif name not in ignore:
            raise StateError(
                f"the state holds the loop variable {name!r}, which nobody has set by the end of "
                f"on_train_begin. Variables with state are: {', '.join(there) or 'none'}. Put back "
                f"the component that sets it, or go on without it: ignore=[{name!r}]"
            )
    known = {id(value) for value in found.values()}
    for name, value in there.items():
        if id(value) not in known and name not in ignore and value.state_dict():
            raise StateError(
                f"the loop variable {name!r}, a {type(value).__name__}, has state, but the state "
                f"holds none for it. To let it start afresh: ignore=[{name!r}]"
            )
    optimizers = {n: v for n, v in found.items() if isinstance(v, Optimizer)}
    schedulers = {n: v for n, v in found.items() if isinstance(v, LRScheduler)}
    return optimizers | schedulers | found


def _check_groups(name: str, value: Any, saved: State) -> None:
    if not isinstance(value, Optimizer) or "param_groups" not in saved:
        return
    sizes = [len(group["params"]) for group in value.param_groups]
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != saved_sizes:
        raise StateError(
            f"the loop variable {name!r}, a {type(value).__name__}, has parameter groups with "
            f"{sizes} parameters, but the state was taken with {saved_sizes}. Make it with the "
            "same groups in on_train_begin"
        )


def _matching_components(
    members: Sequence[Member], state: State, ignore: Collection[str]
) -> dict[str, Member]:
    """Return the members to load, by name; warn of those of another version."""
    saved, records = state["components"], {record["name"]: record for record in state["manifest"]}
    there = {member.name: member for member in members if has_state(member.component)}
    for name in saved.keys() - there.keys() - set(ignore):
        raise StateError(
            f"the state holds component {name!r} ({_origin(records[name])}), but no component of "
            f"that name with state is in the list. {did_you_mean(name, there)}Put it back, or go "
            f"on without it: ignore=[{name!r}]"
        )
    for name, member in there.items():
        if name in saved:
            _warn_of_another_version(member, records[name])
        elif name not in ignore:
            raise StateError(
                f"{member} has state, but the state holds none for it: it was not in the list. To "
                f"let it start afresh: ignore=[{name!r}]"
            )
    return {name: member for name, member in there.items() if name in saved}


def _warn_of_another_version(member: Member, record: State) -> None:
    now = member.record()
    if (record["distribution"], record["version"]) != (now["distribution"], now["version"]):
        warnings.warn(
            f"{member} goes on from the state of {_origin(record)}. If that does not fit, install "
            "that version",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def _origin(record: State) -> str:
    by = " ".join(filter(None, (record["distribution"], record["version"])))
    return by or f"class {record['class']}"


def _warn_of_another_environment(saved: State) -> None:
    changed = [
        f"{what} {saved[what]}, now {now}"
        for what, now in _environment().items()
        if now != saved[what]
    ]
    if changed:
        warnings.warn(
            "the run goes on, but may differ in bits from one that was not interrupted: "
            f"{'; '.join(changed)}",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"a {type(value).__name__}"


# -- random numbers and surroundings ---------------------------------------------------------

_DEVICES = ("cuda", "xpu", "mps")


def _random_state() -> State:
    devices = {}
    for name in _DEVICES:
        device = getattr(torch, name, None)
        if device is not None and device.is_available():
            devices[name] = _states_of(device)
    numpy = sys.modules.get("numpy")
    return {
        "python": random.getstate(),
        "numpy": _numpy_state(numpy) if numpy else None,
        "torch": torch.get_rng_state(),
        "devices": devices,
    }


def _restore_random(loop: TrainTestLoop, state: State) -> None:
    """Put back random numbers, when everything that draws from them has been made."""
    for name, data in (("train", loop.train_data), ("valid", loop.valid_data)):
        restore_generators(data, state["data"][name])
    saved = state["random"]
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(saved["torch"])
    for name, states in saved["devices"].items():
        device = getattr(torch, name, None)
        if device is not None and device.is_available():
            _set_states_of(device, states)
    if saved["numpy"] is not None:
        _set_numpy_state(saved["numpy"])


def _states_of(device: Any) -> list[torch.Tensor]:
    if hasattr(device, "get_rng_state_all"):
        return list(device.get_rng_state_all())
    return [device.get_rng_state()]


def _set_states_of(device: Any, states: list[torch.Tensor]) -> None:
    if hasattr(device, "set_rng_state_all"):
        device.set_rng_state_all(states[: device.device_count()])
    else:
        device.set_rng_state(states[0])


def _numpy_state(numpy: Any) -> State:
    kind, keys, position, has_gauss, gauss = numpy.random.get_state()
    return {
        "kind": kind,
        "keys": keys.tolist(),
        "position": int(position),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def _set_numpy_state(saved: State) -> None:
    try:
        import numpy
    except ImportError:  # nobody draws from it here
        return
    numpy.random.set_state(tuple(saved.values()))


def _environment() -> State:
    """Return what bits depend on, besides the state."""
    on_gpu = torch.cuda.is_available()
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }
