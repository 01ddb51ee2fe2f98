"""Forks of a loop in which a component tries something before training."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ttl_core import ArgumentError, LoopComponent, TrainTestLoop, hookimpl
from ttl_core.arguments import describe

_NEVER_IN = ("early-stopping", "time-limit", "validate-every", "nan-guard", "rollback")
"""The components that end or extend a run."""


def component_names(name: str, value: Any) -> list[str]:
    """Return an argument that is a collection of names of components.

    Args:
        name: the name of the argument, for the error.
        value: its value.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, str) or not isinstance(value, Collection):
        raise ArgumentError(f"{name} is {describe(value)}, but has to be names of components")
    return list(value)


def trial_fork(
    loop: TrainTestLoop, component: LoopComponent, *others: str, without: Collection[str]
) -> TrainTestLoop:
    """Return a fork without validation, what ends or extends a run, and some more components.

    Args:
        loop: the loop.
        component: the component that makes the trial.
        *others: the names of components to leave out where they are in the list.
        without: the names of components to leave out, which have to be in the list.
    """
    names = loop.components.names()
    own = loop.components.name_of(component)
    others = tuple(name for name in (*_NEVER_IN, *others) if name in names)
    fork = loop.fork(without=[own, *others, *without])
    fork.valid_data = None
    fork.components.append(_NoPlateau())
    return fork


class _NoPlateau(LoopComponent):
    """No scheduler by a metric, which may be of the validation that a trial leaves out."""

    @hookimpl(trylast=True)
    def on_train_begin(self, loop: TrainTestLoop) -> None:
        if isinstance(vars(loop).get("scheduler"), ReduceLROnPlateau):
            loop.scheduler = None
