"""The loops and components that the tests of this folder are made of."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.hookspecs import POINTS


@pytest.fixture
def at() -> Callable[..., LoopComponent]:
    """Return a function that makes a component of functions: `at(on_batch_end=print_loss)`."""

    def make(**functions: Any) -> LoopComponent:
        methods = {
            key: staticmethod(value) if callable(value) else value
            for key, value in functions.items()
        }
        return type("At", (LoopComponent,), methods)()

    return make


@pytest.fixture
def loop_of() -> Callable[..., TrainTestLoop]:
    """Return a function that makes a loop of components, with numbers for batches."""

    def make(
        *components: LoopComponent,
        train_data: Iterable[Any] | None = (0, 1),
        valid_data: Iterable[Any] | None = (0,),
    ) -> TrainTestLoop:
        return TrainTestLoop(torch.nn.Linear(2, 1), components, train_data, valid_data)

    return make


@pytest.fixture
def points() -> list[str]:
    """Return a list to which the component `recorder` adds each point that it is called at."""
    return []


@pytest.fixture
def recorder(at: Callable[..., LoopComponent], points: list[str]) -> LoopComponent:
    """Return a component that adds each point that it is called at to the list `points`."""

    def adding(point: str) -> Callable[[TrainTestLoop], None]:
        return lambda loop: points.append(point)

    return at(**{point: adding(point) for point in POINTS if point.startswith("on_")})


@pytest.fixture
def watching() -> Callable[..., LoopComponent]:
    """Return a function that makes a component that looks at loop variables at some points.

    What it has seen is a list: of the variable's values, or of tuples where there are several.
    """

    class Watch(LoopComponent):
        def __init__(self, points: str, *variables: str) -> None:
            self.variables, self.seen = variables, []
            for point in points.split():
                setattr(self, point, self.look)

        def look(self, loop: TrainTestLoop) -> None:
            first, *rest = [getattr(loop, name) for name in self.variables]
            self.seen.append((first, *rest) if rest else first)

    return Watch
