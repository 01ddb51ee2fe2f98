"""Components that fail, the exception of a run, and the component that its note names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop, hookimpl


class Failure(Exception):  # noqa: N818
    """The exception of a component that fails."""


def fail() -> None:
    """Raise a Failure, in another frame than that of the component."""
    raise Failure


def failure_of(run: Callable[[], object]) -> Any:
    """Return the exception that a run raised."""
    with pytest.raises((Failure, KeyboardInterrupt, RuntimeError)) as raised:
        run()
    return raised.value


def attribution(exception: Any) -> Any:
    """Return the names of the component and of the point in the first note of an exception."""
    return re.match(
        r"ttl: raised by component '(.+?)' .* in (\w+)", exception.__notes__[0]
    ).groups()


def bare(function: Any) -> Any:
    """Decorate a hook without functools.wraps."""

    def inner(self: Any, loop: TrainTestLoop) -> Any:
        return function(self, loop)

    return inner


class Harmless(LoopComponent):
    """A component with every kind of method that takes part in everything and never fails."""

    @hookimpl(wrapper=True)
    def around_run(self, loop):
        return (yield)

    @hookimpl(wrapper=True)
    def around_epoch(self, loop):
        return (yield)

    @hookimpl(wrapper=True, specname="on_batch_begin")
    @torch.no_grad()
    def surround(self, loop):
        return (yield)

    @bare
    def on_batch_begin(self, loop): ...

    @bare
    def on_epoch_begin(self, loop): ...

    def on_exception(self, loop): ...
