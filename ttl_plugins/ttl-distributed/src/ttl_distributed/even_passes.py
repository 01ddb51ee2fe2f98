"""The same number of forward passes in each process, where they have other numbers of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ttl_core import map_nested, to_device
from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup
from ttl_distributed.sharding import reshard


class EvenPasses:
    """The forward passes of an evaluation, of which each process computes as many as the others.

    A model whose parameters are shared out is gathered in each forward pass, in which all
    processes have to take part. The passes that a process computes for others alone are those of
    its last batch again. They go through no hook, so that they count nothing.

    Args:
        model: the model.
        group: the processes.
        n_batches: how many batches this process expects; None if it does not know.
        vote: takes the number of a batch, before which processes vote on whether to end.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        group: ProcessGroup,
        n_batches: int | None,
        vote: Callable[[int], object],
    ) -> None:
        self._model, self._group, self._vote = model, group, vote
        self._n_expected = n_batches
        self._n_batches: int | None = None  # the most that a process has, where it is known
        self._n_done = 0
        self._has_begun = self._has_to_share = self._is_repeating = False
        self._calls: list[tuple[Any, Any]] = []  # of the model, in the newest batch
        # first, so that it comes before the one in which parameters are gathered
        self._handle = model.register_forward_pre_hook(self._note, prepend=True, with_kwargs=True)

    def begin_pass(self) -> None:
        """Prepare for the forward pass of a batch of this process."""
        self._calls = []
        self._agree(is_own=True)
        self._n_done += 1

    def finish(self) -> None:
        """Compute forward passes as long as other processes do; this one has no more batches."""
        self._vote(self._n_done)
        while self._agree(is_own=False):
            self._repeat()
            self._n_done += 1
            self._vote(self._n_done)

    def close(self) -> None:
        """Let each process have its part of the parameters only, and forget the batch."""
        self._handle.remove()
        self._calls = []
        reshard(self._model)

    def _agree(self, *, is_own: bool) -> bool:
        """Return whether a process has another batch, which all of them have to call this for."""
        if not self._has_begun:
            self._has_begun = True
            several = self._group.gather((self._n_expected, is_own))
            lengths, are_there = zip(*several, strict=True)
            self._n_batches = None if None in lengths else max(lengths)
            self._has_to_share = not all(are_there)
            if not any(are_there):
                self._n_batches = 0
            return any(are_there)
        if self._n_batches is None:
            return self._group.any(is_own)
        return is_own or self._n_done < self._n_batches

    def _repeat(self) -> None:
        """Compute the forward passes of the newest batch, or those of a batch of others."""
        self._is_repeating = True
        try:
            if self._has_to_share:
                self._share(None)
            with explaining_failures("the forward pass"):
                for args, kwargs in self._calls:
                    self._model(*args, **kwargs)
        finally:
            self._is_repeating = False

    def _note(self, _model: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if not self._is_repeating:
            if self._has_to_share:
                self._share((args, kwargs))
            self._calls.append((args, kwargs))

    def _share(self, own: Any) -> None:
        """Get inputs of the model from a process that has a batch, where this one has none."""
        self._has_to_share = False

        def to_cpu(value: Any) -> Any:
            return value.cpu() if isinstance(value, torch.Tensor) else value

        inputs = self._group.gather(None if own is None else map_nested(to_cpu, own))
        if own is None:
            there = next(each for each in inputs if each is not None)
            self._calls = [to_device(there, self._group.device)]


class UntilAllEnd:
    """Data for prediction, at whose end a process computes forward passes as others still do.

    Args:
        data: the data.
        passes: the forward passes.
    """

    def __init__(self, data: Any, passes: EvenPasses) -> None:
        self._data, self._passes = data, passes

    def __iter__(self) -> Iterator[Any]:
        yield from self._data
        self._passes.finish()
