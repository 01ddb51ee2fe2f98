"""Components and loops for tests, made in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from recording import recording_hook

from ttl_core import LoopComponent, TrainTestLoop, hookimpl


def make_component(**attributes: Any) -> LoopComponent:
    """Return a component with functions as its hooks: `make_component(on_batch_end=print_loss)`.

    Args:
        **attributes: functions that take what their callback point gives, without `self`, and
            other attributes of the component's class, which is called `Part`.
    """
    body = {
        name: staticmethod(value) if callable(value) else value
        for name, value in attributes.items()
    }
    return type("Part", (LoopComponent,), body)()


def named(name: str | None, **attributes: Any) -> LoopComponent:
    """Return a component that returns its name in on_batch_end."""
    return make_component(**{"name": name, "on_batch_end": lambda: name, **attributes})


class MainLoop(LoopComponent):
    """A component without a name of its own, that returns its name in the list in on_batch_end."""

    def on_batch_end(self, loop: TrainTestLoop) -> str:
        return loop.components.names()[loop.components.index(self)]


def implementing(name: str, point: str = "on_batch_end", **options: bool) -> LoopComponent:
    """Return a component with an implementation that adds its component to `loop.called`.

    Args:
        name: the name of the component.
        point: the callback point.
        **options: the options of the implementation, as of hookimpl.
    """
    return type("Part", (LoopComponent,), {"name": name, point: recording_hook(**options)})()


def act_at(point: str, action: Any) -> LoopComponent:
    """Return a component that calls a function at a point, before and after it if it is around."""

    @hookimpl(wrapper=True)
    def around(loop: TrainTestLoop) -> Any:
        action(loop)
        try:
            return (yield)
        finally:
            action(loop)

    hook = around if point.startswith("around_") else lambda loop: action(loop)
    return make_component(**{point: hook})


def make_loop(
    *components: Any,
    train_data: Iterable[Any] | None = (0, 1),
    valid_data: Iterable[Any] | None = (0,),
) -> TrainTestLoop:
    """Return a loop of components, whose batches are numbers."""
    return TrainTestLoop(torch.nn.Linear(2, 1), components, train_data, valid_data)


def call_order(loop: TrainTestLoop) -> str:
    """Return the names of the `named` components that the next hook call reaches, as one word."""
    return "".join(loop.hook.on_batch_end(loop=loop))
