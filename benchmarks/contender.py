"""What the benchmark asks of a contender."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks.task import Outcome, Task

Base = TypeVar("Base")

Run = Callable[[Task], Outcome | None]
"""Make everything that the contender needs, and train for all epochs of the task."""


@dataclass(frozen=True)
class Contender:
    """A way to write a training loop.

    Attributes:
        name: what the tables call it.
        runs: what it takes part in: a run by the name of its workload. The workloads are in
            `benchmarks.workloads`. A run of "everyday" returns what it arrived at.
        distributions: those that it is made of, whose versions the page shows.
        n_points: how many of the callback points that "ten-components" implements fire in a batch.
        lean: how it is set up: what is switched off, and what is special.
        lacks: why it takes no part, by the name of the workload: the same work is not possible.
    """

    name: str
    runs: Mapping[str, Run]
    distributions: tuple[str, ...] = ()
    n_points: int | None = None
    lean: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)


def override_all(base: type[Base], names: Iterable[str]) -> type[Base]:
    """Return a subclass in which methods do nothing, with the signatures that they had.

    Each is a function of its own, as in code that was written by hand, and returns None.

    Args:
        base: the class.
        names: the methods to override.
    """
    namespace: dict[str, object] = {}
    for name in names:
        signature = inspect.signature(getattr(base, name))
        bare = [
            parameter.replace(annotation=parameter.empty)
            for parameter in signature.parameters.values()
        ]
        exec(f"def {name}{inspect.Signature(bare)}: pass", namespace)
    methods = {name: namespace[name] for name in names}
    return type(f"Empty{base.__name__}", (base,), methods)
