"""Splitting the parameter groups of an optimizer that exists, and of its scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from ttl_core import ArgumentError
from ttl_core.arguments import describe, did_you_mean

_NO_SETTINGS = ("lr_scale", "freeze")


def split_groups(
    optimizer: Optimizer, settings: Mapping[int, Mapping[str, Any]], scheduler: Any
) -> None:
    """Split the groups of an optimizer by the settings of their parameters, in place.

    Args:
        optimizer: the optimizer. Parameters of a group with the same settings stay together.
        settings: by the id of each parameter, the settings that it has of its own; "lr_scale" is
            what all learning rates of its group are multiplied by.
        scheduler: a scheduler of this or another optimizer, or None. It gets the new groups.

    Raises:
        ArgumentError: the optimizer has no such setting.
    """
    before = list(optimizer.param_groups)
    after: list[dict[str, Any]] = []
    origins: list[tuple[int, float]] = []  # of each new group: the old one, and the scale
    for i, group in enumerate(before):
        parts: dict[Any, list[int]] = {}
        for position, parameter in enumerate(group["params"]):
            own = settings.get(id(parameter), {})
            kept = {name: own[name] for name in sorted(own) if name != "freeze"}
            parts.setdefault(repr(kept), []).append(position)
        for positions in parts.values():
            own = settings.get(id(group["params"][positions[0]]), {})
            scale = own.get("lr_scale", 1.0)
            after.append(_part(optimizer, group, positions, own, scale))
            origins.append((i, scale))
    optimizer.param_groups[:] = after
    if scheduler is not None:
        _split_scheduler(scheduler, optimizer, len(before), origins)


def _part(
    optimizer: Optimizer,
    group: Mapping[str, Any],
    positions: list[int],
    own: Mapping[str, Any],
    scale: float,
) -> dict[str, Any]:
    part = dict(group)
    for name in ("params", "param_names"):
        if name in group:
            part[name] = [group[name][position] for position in positions]
    for name, value in own.items():
        if name in _NO_SETTINGS:
            continue
        if name not in group:
            if name == "weight_decay" and not value:  # an optimizer that has none
                continue
            hint = did_you_mean(name, [*group, *_NO_SETTINGS])
            raise ArgumentError(
                f"'param-groups' has the setting {name!r} with {describe(value)}, but the "
                f"optimizer, a {type(optimizer).__name__}, has no such setting. {hint}It has: "
                f"{', '.join(key for key in group if key not in ('params', 'param_names'))}"
            )
        part[name] = value
        if name == "lr" and "initial_lr" in part:
            part["initial_lr"] = value
    for name, value in part.items():
        if _is_rate(name) and isinstance(value, torch.Tensor | float | int):
            # a rate that is a tensor is one of its own in each group
            part[name] = value * scale if scale != 1 else _copied(value)
    if scale != 1:
        # for rates that are set later, as those of `swa`; by "lr_scale" schedulers of timm multiply
        part["lr_scaled_by"] = scale
    return part


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _is_rate(name: str) -> bool:
    """Return whether a setting is a learning rate, such as those that schedulers add to groups."""
    return name == "lr" or name.endswith("_lr")


def _split_scheduler(
    scheduler: Any, optimizer: Optimizer, n_before: int, origins: list[tuple[int, float]]
) -> None:
    """Give a scheduler a value for each new group, where it has one for each group."""
    for one in getattr(scheduler, "_schedulers", ()):
        _split_scheduler(one, optimizer, n_before, origins)
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        return
    for name, value in list(vars(scheduler).items()):
        if not isinstance(value, list) or len(value) != n_before or name == "_schedulers":
            continue
        if name == "base_lrs":
            split = [group["initial_lr"] for group in optimizer.param_groups]
        elif name == "_last_lr":
            split = [group["lr"] for group in optimizer.param_groups]
        elif name.endswith("lrs") and name != "min_lrs":
            split = [value[i] * scale for i, scale in origins]
        elif name in ("lr_lambdas", "min_lrs"):
            split = [value[i] for i, _ in origins]
        else:
            continue
        vars(scheduler)[name] = split
