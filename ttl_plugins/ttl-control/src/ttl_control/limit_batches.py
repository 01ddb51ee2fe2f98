"""The component `limit-batches`."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ttl_core import LoopComponent, hookimpl
from ttl_core.arguments import whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


class LimitBatches(LoopComponent):
    """A limit to the number of batches of each epoch, to see quickly whether everything works.

    `loop.n_batches` and `loop.n_optim_steps` follow, so that progress bars and schedulers are
    right.

    Args:
        n: how many batches in every phase; None for all.
        train: how many in training, in place of `n`.
        valid: how many in validation, in place of `n`; in each set where there are several.
        test: how many in testing, in place of `n`.
        predict: how many in prediction, in place of `n`.

    Raises:
        ArgumentError: a limit is no whole number from 1.

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
        predict: int | None = None,
    ) -> None:
        common = _checked("n", n)
        phases = {"train": train, "valid": valid, "test": test, "predict": predict}
        self.limits = {
            phase: common if limit is None else _checked(phase, limit)
            for phase, limit in phases.items()
        }

    # outermost: other components that change the number, or build a scheduler on it, come later
    @hookimpl(wrapper=True, tryfirst=True)
    def on_train_begin(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Set `n_optim_steps` to what shorter epochs give."""
        limit = self.limits["train"]
        if limit is not None and loop.n_epochs is not None and loop.n_optim_steps is not None:
            loop.n_optim_steps = min(loop.n_optim_steps, loop.n_epochs * limit)
        return (yield)

    # outermost: a component that skips batches, as a prediction that resumes, skips some of these
    @hookimpl(wrapper=True, tryfirst=True)
    def around_epoch(self, loop: TrainTestLoop) -> Generator[None, Any, Any]:
        """Cut `loop.data` short in prediction, which has no on_epoch_begin."""
        if loop.epoch_desc == "predict":
            self._limit(loop)
        return (yield)

    def on_epoch_begin(self, loop: TrainTestLoop) -> None:
        """Cut `loop.data` short."""
        self._limit(loop)

    def _limit(self, loop: TrainTestLoop) -> None:
        limit = self.limits.get(loop.epoch_desc)
        if limit is not None:
            loop.data = FirstBatches(loop.data, limit)


def _checked(name: str, limit: Any) -> int | None:
    return None if limit is None else whole_number(name, limit, at_least=1)


class FirstBatches:
    """The first `n` batches of data. A run can resume inside them if it can inside the data.

    Args:
        data: the data.
        n: how many batches.

    Attributes:
        wrapped_data: the data.
    """

    def __init__(self, data: Any, n: int) -> None:
        self.wrapped_data = data
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.wrapped_data, self.n)

    def iterate_rest(self, batches: Iterable[Any], n_batches: int) -> Iterator[Any]:
        """Return an iterator over the rest of an epoch.

        Args:
            batches: what is left of the wrapped data.
            n_batches: how many batches of this epoch were consumed.
        """
        return itertools.islice(batches, max(self.n - n_batches, 0))

    def __len__(self) -> int:
        # Where data have no length this raises TypeError, as a DataLoader over a stream does: it is
        # not known whether they have as many batches as the limit.
        return min(len(self.wrapped_data), self.n)
