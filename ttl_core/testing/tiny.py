"""A tiny model, its data, and a loop of both, for tests that train for milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ttl_core.components.component import Item
from ttl_core.loop import TrainTestLoop


def tiny_model() -> torch.nn.Module:
    """Return a new small model: 4 features in, 2 scores out, no random numbers in forward.

    It is the same each time, and the global random numbers stay where they are.

    Example:
        >>> tiny_model()(torch.ones(6, 4)).shape
        torch.Size([6, 2])
    """
    before = torch.get_rng_state()  # not by fork_rng, which looks at each device: this is faster
    torch.default_generator.manual_seed(0)
    try:
        return torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
        )
    finally:
        torch.set_rng_state(before)


def tiny_data(n_batches: int = 3) -> list[Any]:
    """Return batches for the model: inputs of shape (6, 4), targets of shape (6,).

    Args:
        n_batches: how many.

    Example:
        >>> [(inputs.shape, targets.shape) for inputs, targets in tiny_data(1)]
        [(torch.Size([6, 4]), torch.Size([6]))]
    """
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(6, 4, generator=generator, dtype=torch.float32),
            torch.randint(0, 2, (6,), generator=generator),
        )
        for _ in range(n_batches)
    ]


def tiny_loop(*components: Item, n_batches: int = 3, n_valid_batches: int = 2) -> TrainTestLoop:
    """Return a loop of components with the tiny model and data.

    Args:
        *components: the components, names of installed ones, or specs; `Step()` takes plain steps.
        n_batches: how many batches of training data.
        n_valid_batches: how many of validation data.

    Example:
        >>> from ttl_core.testing import Step
        >>> loop = tiny_loop(Step())
        >>> loop.train(n_epochs=2)
        >>> loop.global_step
        6
    """
    return TrainTestLoop(tiny_model(), components, tiny_data(n_batches), tiny_data(n_valid_batches))


class Stream:
    """Batches without a length.

    Args:
        batches: the batches of each epoch.

    Example:
        >>> loop = tiny_loop()
        >>> loop.data = Stream([1, 2])
        >>> loop.n_batches is None
        True
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __repr__(self) -> str:
        return f"Stream({self.batches!r})"

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)
