"""Schedulers: how a factory is called, and what a schedule is most likely not meant to be."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

from ttl_core import ArgumentError
from ttl_core.arguments import user_stacklevel

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_N_STEPS = ("T_max", "total_iters", "total_steps")
"""What torch's schedulers call the number of steps."""

Factory = Callable[[torch.optim.Optimizer, int | None, int | None], Any]
"""A function of the optimizer, the number of optimization steps and of steps of the scheduler."""


def checked_factory(factory: Callable[..., Any]) -> Factory:
    """Return a factory of schedulers, as one that is called in one way.

    Args:
        factory: a function of the optimizer and the number of optimization steps; or a scheduler
            class of torch, or a functools.partial of one, which is called with the optimizer, and
            with the number of its own steps where it takes that and has no value for it.

    Raises:
        ArgumentError: it cannot be called so.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError) as error:
        if isinstance(factory, partial):  # it has arguments that its function does not take
            raise ArgumentError(
                f"scheduler is {factory!r}, which cannot be called: {error.__cause__ or error}"
            ) from None
        # some built-in functions have no signature
        return lambda optimizer, n_steps, _: factory(optimizer, n_steps)
    cls = _scheduler_class(factory)
    if cls is None or not cls.__module__.startswith("torch."):
        if _binds(signature, 2):
            return lambda optimizer, n_steps, _: factory(optimizer, n_steps)
        if cls is not None and _binds(signature, 1):
            return lambda optimizer, *_: factory(optimizer)
        raise ArgumentError(
            f"scheduler is {factory!r}, a factory that takes {signature}, but it is called with "
            "the optimizer and the number of optimization steps, as "
            "lambda optimizer, n_steps: ... is"
        )
    keyword = _n_steps_keyword(factory, cls)
    try:
        signature.bind(None, **{keyword: None} if keyword else {})
    except TypeError as error:
        raise ArgumentError(
            f"scheduler is a factory of {cls.__name__}, which is called with the optimizer, but "
            f"that fails: {error}. Give the other arguments by name: partial({cls.__name__}, ...)"
        ) from None

    def create(optimizer: torch.optim.Optimizer, _: int | None, n: int | None) -> Any:
        if keyword is None:
            return factory(optimizer)
        if n is None:
            raise ArgumentError(
                f"{cls.__name__} needs {keyword}, but how often it will be stepped is unknown. "
                f"Use partial({cls.__name__}, {keyword}=...)"
            )
        return factory(optimizer, **{keyword: n})

    return create


def _scheduler_class(factory: Any) -> type | None:
    """Return the class of a scheduler class or of a partial of one, else None."""
    while isinstance(factory, partial):
        factory = factory.func
    is_class = isinstance(factory, type) and issubclass(factory, LRScheduler)
    return factory if is_class else None


def _binds(signature: inspect.Signature, n_arguments: int) -> bool:
    try:
        signature.bind(*[None] * n_arguments)
    except TypeError:
        return False
    return True


def _n_steps_keyword(factory: Any, cls: type) -> str | None:
    """Return the name of the number of steps, where a class takes it and has no value for it."""
    given: set[str] = set()
    while isinstance(factory, partial):
        given |= factory.keywords.keys()
        factory = factory.func
    names = list(inspect.signature(cls).parameters)
    if names[1] in _N_STEPS:
        return None if names[1] in given else names[1]
    is_one_cycle = issubclass(cls, OneCycleLR)
    has_length = given & {"total_steps", "epochs", "steps_per_epoch"}
    return "total_steps" if is_one_cycle and not has_length else None


def warn_of_epochs(scheduler: Any, loop: TrainTestLoop) -> None:
    """Warn of a schedule in epochs that would be stepped after each optimization step.

    Args:
        scheduler: the scheduler, which is stepped after each step by default.
        loop: the loop, at the beginning of train().
    """
    n_epochs, n_steps = loop.n_epochs, loop.n_optim_steps
    if n_epochs is None or n_steps is None or n_steps < 2 * n_epochs:
        return
    match scheduler:
        case StepLR():
            what, factor = f"step_size={scheduler.step_size}", scheduler.gamma
            is_suspicious = _vanishes(factor, n_steps / scheduler.step_size)
        case ExponentialLR():
            what = f"gamma={scheduler.gamma}"
            is_suspicious = _vanishes(scheduler.gamma, n_steps)
        case MultiStepLR():
            milestones = sorted(scheduler.milestones)
            what = f"milestones={milestones}"
            is_suspicious = len(milestones) > 1 and milestones[-1] <= n_epochs
        case CosineAnnealingLR():
            what, is_suspicious = f"T_max={scheduler.T_max}", scheduler.T_max <= n_epochs
        case _:
            return
    if is_suspicious:
        warnings.warn(
            f"scheduler is a {type(scheduler).__name__} with {what}, which is stepped after each "
            f"of {n_steps} optimization steps in {n_epochs} epochs. If it counts epochs, give "
            "scheduler_interval='epoch', else scheduler_interval='step'",
            UserWarning,
            stacklevel=user_stacklevel(),
        )


def _vanishes(factor: float, n_times: float) -> bool:
    """Return whether a learning rate falls below a millionth."""
    return 0 < factor < 1 and n_times * math.log(factor) < math.log(1e-6)
