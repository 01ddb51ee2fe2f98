"""The component `limit-batches`."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, hookimpl

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class LimitBatches(LoopComponent):
    """Go through the first batches of each epoch only, to see quickly whether all works.

    `loop.n_batches` and `loop.n_optim_steps` follow, so that bars and schedulers come out right.

    Args:
        n: how many batches in every phase; None for all.
        train: how many in training, in place of `n`.
        valid: how many in validation, in place of `n`.
        test: how many in testing, in place of `n`.

    Raises:
        ValueError: a limit is no whole number from 1.

    Example:
        >>> import torch
        >>> from ttl_core import TrainTestLoop
        >>> limit = LimitBatches(train=10, valid=2)
        >>> loop = TrainTestLoop(torch.nn.Identity(), [limit], [0] * 1000)
        >>> loop.train(n_epochs=3)
        >>> loop.global_step, loop.n_optim_steps
        (30, 30)
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        train: int | None = None,
        valid: int | None = None,
        test: int | None = None,
    ) -> None:
        for name, limit in {"n": n, "train": train, "valid": valid, "test": test}.items():
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ValueError(f"{name} is {limit!r}, no whole number from 1")
        phases = {"train": train, "valid": valid, "test": test}
        self.limits = {phase: n if own is None else own for phase, own in phases.items()}

    # outermost: whoever else changes the number, or builds a scheduler on it, comes after
    @hookimpl(wrapper=True, tryfirst=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Set `n_optim_steps` to what shorter epochs give."""
        limit = self.limits["train"]
        if limit is not None and loop.n_epochs is not None and loop.n_optim_steps is not None:
            loop.n_optim_steps = min(loop.n_optim_steps, loop.n_epochs * limit)
        return (yield)

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Cut `loop.data` short."""
        limit = self.limits[loop.epoch_desc]
        if limit is not None:
            loop.data = _First(loop.data, limit)


class _First:
    """Be the first `n` batches of data."""

    def __init__(self, data: Any, n: int) -> None:
        self.data = data
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.data, self.n)

    def __len__(self) -> int:
        # Where data have no length this raises TypeError, as a DataLoader over a stream does:
        # that they have as many batches as the limit is not known.
        return min(len(self.data), self.n)
