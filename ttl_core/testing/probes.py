"""Components that act at chosen moments of a run, and stand for those of others."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Generator
from typing import Any

from ttl_core.components.component import Item, LoopComponent, own_name
from ttl_core.discovery import use
from ttl_core.hookspecs import POINTS, hookimpl
from ttl_core.loop import TrainTestLoop
from ttl_core.testing.observer import Observer

MOMENTS = tuple(point for point in POINTS if point != "on_exception")
"""When a probe may act: in each hook, and before what an around-hook surrounds."""


class Probe(Observer):
    """A component that calls a function at some moments of a run.

    Args:
        act: takes the loop and the name of the moment.
        *moments: when to act.
    """

    def __init__(self, act: Callable[[TrainTestLoop, str], object], *moments: str) -> None:
        self.act = act
        for point in moments:
            hook = self._wrapper(point) if point.startswith("around_") else self._plain(point)
            setattr(self, point, hook)

    def _plain(self, point: str) -> Callable[[TrainTestLoop], None]:
        def hook(loop: TrainTestLoop) -> None:
            self.act(loop, point)

        return hook

    def _wrapper(self, point: str) -> Callable[[TrainTestLoop], Generator[None, Any, Any]]:
        @hookimpl(wrapper=True)
        def hook(loop: TrainTestLoop) -> Generator[None, Any, Any]:
            self.act(loop, point)
            return (yield)

        return hook


class WrapperParts:
    """A wrapper, the generator that a hook returns, whose parts a function calls.

    Args:
        generator: the wrapper.
        call: calls a function with arguments: what runs up to the yield, and then what follows.
    """

    def __init__(self, generator: Any, call: Callable[..., Any]) -> None:
        self.close = generator.close
        self.gi_code: Any = getattr(generator, "gi_code", None)  # for errors of the loop
        self._generator = generator
        self._call = call

    def __next__(self) -> None:
        self._call(next, self._generator)

    def send(self, value: Any) -> None:
        """Resume the wrapper with a value."""
        self._call(self._generator.send, value)

    def throw(self, exception: BaseException) -> None:
        """Resume the wrapper with an exception."""
        self._call(self._generator.throw, exception)


def is_named(loop: TrainTestLoop, name: str, component: LoopComponent) -> bool:
    """Return whether a component has a name in the list of a loop."""
    names = loop.components.names()
    return any(c is component and n == name for c, n in zip(loop.components, names, strict=True))


def with_name(item: Item, name: str, *, except_for: Collection[str] = ()) -> Item:
    """Return an item with a name of its own in a list, unless it has to keep the one that it has.

    One that was created by hand has to where it provides points, which begin with its name.

    Args:
        item: the item.
        name: the name.
        except_for: names that others require, which those created by hand keep.
    """
    if isinstance(item, LoopComponent):
        if getattr(item, "hookspecs", None) is None and own_name(item) not in except_for:
            with contextlib.suppress(AttributeError):  # as of a property
                item.name = name
        return item
    return dataclasses.replace(use(item) if isinstance(item, str) else item, name=name)


class MeanLoss(LoopComponent):
    """A component of another package that logs a value of each epoch at its end."""

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Start a new mean."""
        self.losses: list[Any] = []

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Add the loss of the batch."""
        loss = vars(loop).get("loss")
        if loss is not None and vars(self).get("losses") is not None and not loop.is_predicting:
            self.losses.append(loss.detach())

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the mean."""
        if self.losses:
            loop.log({"mean-loss": sum(self.losses) / len(self.losses)}, level="epoch")


class Accumulate(LoopComponent):
    """A component of another package that lets two batches make a step."""

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Clear `is_stepping` in the first of two batches."""
        if loop.is_training and loop.batch_num % 2 == 0:
            loop.is_stepping = False


class PlannedError(RuntimeError, ValueError, LookupError, ArithmeticError, TypeError):
    """The exception that probes raise: of many types, as a component may swallow one of them."""
