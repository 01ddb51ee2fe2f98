"""Settings of a script that a state overrides: recorded, compared, and one of both chosen."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from ttl_core.errors import StateError
from ttl_core.state.data_order import order_of
from ttl_core.state.protocol import State, has_state, unwrapped

Choice = Literal["saved", "new"]

_NO_SETTINGS = {
    # of a parameter group: its parameters, and how a step is computed
    *("params", "param_names", "foreach", "fused", "capturable", "differentiable"),
    # of a scheduler: its progress, and what follows from learning rates
    *("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial"),
    *("base_lrs", "lr_lambdas", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"),
    *("mode_worse", "verbose"),
}
_NOT_COMPARED = {"initial_lr"}  # it follows from the learning rate


class Difference(NamedTuple):
    """A setting that differs.

    Attributes:
        variable: the loop variable, "train_data", or a component.
        name: the name of the setting.
        saved: its value in the state.
        new: its value in the script.
    """

    variable: str
    name: str
    saved: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.variable} {self.name}: {_short(self.saved)} saved, {_short(self.new)} new"


# -- recording ------------------------------------------------------------------------------


def settings_of(variables: Mapping[str, Any], train_data: Any) -> State:
    """Return the settings of a script, as on_train_begin has left them.

    Args:
        variables: the loop variables that have state, by name.
        train_data: the training data.
    """
    found: State = {}
    for name, value in variables.items():
        if isinstance(value, Optimizer):
            groups = value.param_groups
            for i, group in enumerate(groups):
                prefix = f"param_groups.{i}." if len(groups) > 1 else ""
                found.setdefault(name, {}).update(_plain_items(group, prefix))
        elif isinstance(value, LRScheduler):
            found[name] = _plain_items(value.state_dict())
    size = _batch_size(train_data)
    return found if size is None else {**found, "train_data": {"batch_size": size}}


def _plain_items(values: Mapping[str, Any], prefix: str = "") -> State:
    found = {}
    for name, value in values.items():
        if name == "_schedulers":  # of several schedulers in one
            for i, one in enumerate(value):
                found.update(_plain_items(one, f"{prefix}{i}."))
        elif name not in _NO_SETTINGS:
            plain = _plain(value)
            if plain is not _NOT_PLAIN:
                found[prefix + name] = plain
    return found


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """Return a value as numbers and text, or _NOT_PLAIN if it is something else."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_meta:
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        items = {key: _plain(item) for key, item in value.items()}
        return _NOT_PLAIN if _NOT_PLAIN in items.values() else items
    if isinstance(value, list | tuple):
        values = [_plain(item) for item in value]
        return _NOT_PLAIN if _NOT_PLAIN in values else type(value)(values)
    return _NOT_PLAIN


def _batch_size(data: Any) -> int | None:
    """Return the size of the batches of a loader whose order a resumed run repeats."""
    data = unwrapped(data)
    if not isinstance(data, DataLoader) or order_of(data) is None:
        return None
    size = data.batch_size
    size = getattr(data.batch_sampler, "batch_size", None) if size is None else size
    return size if isinstance(size, int) else None


# -- comparing ------------------------------------------------------------------------------


def differences(saved: State, new: State) -> list[Difference]:
    """Return the settings that a state overrides.

    Args:
        saved: what `settings_of` returned when the state was taken.
        new: what it returns now.
    """
    found = []
    for variable in saved.keys() & new.keys():
        before, now = saved[variable], new[variable]
        both = [n for n in before if n in now and n.split(".")[-1] not in _NOT_COMPARED]
        names = [name for name in both if _differs(before[name], now[name])]
        # what is derived from others is named where nothing else is
        public = [name for name in names if not name.split(".")[-1].startswith("_")]
        found += [Difference(variable, n, before[n], now[n]) for n in public or names]
    return sorted(found, key=lambda one: one[:2])


def _differs(one: Any, other: Any) -> bool:
    return bool(one != other) and not (one != one and other != other)  # nan is nan


def check_settings(found: Iterable[Difference], choice: Choice | None) -> None:
    """Check that the settings of a script are those of the state, or that there is a choice.

    Args:
        found: the settings that differ.
        choice: "saved" or "new"; None where there is no choice.

    Raises:
        StateError: they differ, and there is no choice, or the saved ones cannot be restored.
    """
    found = list(found)
    if choice == "saved":
        found = [one for one in found if one.variable == "train_data"]
        choices = "The state cannot change the data: give them that one, or choose settings='new'"
    else:
        choices = (
            "Choose for load_state_dict() or checkpoint: settings='saved' to resume with the saved "
            "ones, settings='new' to resume with those of the script; or start again without the "
            "state"
        )
    if found and choice != "new":
        lines = "".join(f"\n    {one}" for one in found)
        raise StateError(
            f"the script has other settings than the state, which would override them:{lines}\n"
            f"{choices}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- the new ones ---------------------------------------------------------------------------


def converted_position(position: State, found: Iterable[Difference], data: Any) -> State:
    """Return a position inside an epoch in batches of another size.

    Args:
        position: what `state_in_epoch` returned.
        found: the settings that differ.
        data: the data of the epoch.

    Raises:
        StateError: there is no such position.
    """
    for one in found:
        if one.variable == "train_data" and one.name == "batch_size":
            n_samples = position["n_batches"] * one.saved
            if has_state(unwrapped(data)) or n_samples % one.new:
                raise StateError(
                    f"the state was taken after {n_samples} samples of an epoch, in batches of "
                    f"{one.saved}, from where no run can resume in batches of {one.new}. Resume "
                    "from a state between epochs, or with the saved batch size"
                )
            return {**position, "n_batches": n_samples // one.new}
    return position


class NewSettings:
    """The settings of a script, applied to what was loaded, as if the run had had them throughout.

    Schedules are computed again up to the current position; a scheduler that follows a metric keeps
    its progress, and the learning rate its ratio to the initial one.

    Args:
        variables: the loop variables that are to be loaded, by name.
        found: the settings that differ.
        new: what `settings_of` returned for the script.
    """

    def __init__(
        self, variables: Mapping[str, Any], found: Iterable[Difference], new: State
    ) -> None:
        self._new = new
        self._found = [one for one in found if one.variable in variables]
        self._variables = variables
        changed = [variables[one.variable] for one in self._found]
        optimizers = {id(getattr(value, "optimizer", value)) for value in changed}
        self.replayed = {
            name: value
            for name, value in variables.items()
            if isinstance(value, LRScheduler)
            and not isinstance(value, ReduceLROnPlateau)
            and id(_optimizer_of(value)) in optimizers
        }
        """The schedulers that are not to be loaded."""

    def apply(self, states: State) -> None:
        """Apply them, after all other variables were loaded.

        Args:
            states: the states of the variables.

        Raises:
            StateError: a schedule has ended before the current position.
        """
        replayed = {id(_optimizer_of(value)) for value in self.replayed.values()}
        for name, value in self._variables.items():
            if isinstance(value, Optimizer) and id(value) in replayed:
                for setting, new in self._new[name].items():
                    group, key = _group_of(value, setting)
                    if key in group:
                        _set(group, key, new)
        for one in self._found:
            value = self._variables[one.variable]
            if isinstance(value, Optimizer) and id(value) not in replayed:
                _change(*_group_of(value, one.name), one)
            elif isinstance(value, ReduceLROnPlateau):
                setattr(value, one.name, one.new)
        for name, scheduler in self.replayed.items():
            _replay(name, scheduler, states[name])


def _optimizer_of(scheduler: Any) -> Any:
    inner = getattr(scheduler, "_schedulers", None)
    return getattr(scheduler, "optimizer", None) or (inner and _optimizer_of(inner[0]))


def _group_of(optimizer: Optimizer, setting: str) -> tuple[State, str]:
    """Return the parameter group of a setting, and its key there."""
    *prefix, key = setting.split(".")
    return optimizer.param_groups[int(prefix[-1]) if prefix else 0], key


def _set(group: State, key: str, value: Any) -> None:
    if isinstance(group[key], torch.Tensor):  # as its owner may hold it
        group[key].fill_(value)
    else:
        group[key] = value


def _change(group: State, key: str, one: Difference) -> None:
    """Change a setting of a parameter group that no scheduler determines."""
    current = _plain(group[key])
    if current == one.saved:
        _set(group, key, one.new)
    elif key == "lr" and one.saved:  # a component has changed it since
        _set(group, key, current * one.new / one.saved)


def _replay(name: str, scheduler: Any, state: State) -> None:
    """Step a new scheduler as often as the saved one was stepped."""
    inner = state.get("_schedulers", [{}])[0]
    target = state.get("last_epoch", inner.get("last_epoch", 0))
    begin = getattr(scheduler, "last_epoch", None)
    begin = scheduler._schedulers[0].last_epoch if begin is None else begin
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the steps of the optimizer were made long ago
            for _ in range(target - begin):
                scheduler.step()
    except ValueError as error:
        raise StateError(
            f"the loop variable {name!r} cannot come to where the run was: {error}"
        ) from error
