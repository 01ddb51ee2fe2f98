"""The same number of forward passes in each process, where they have other numbers of batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from ttl_core import map_nested, to_device
from ttl_distributed.failures import explaining_failures
from ttl_distributed.group import ProcessGroup
from ttl_distributed.sharding import reshard

_END = object()


class EvenPasses:
    """Data for evaluation, behind which a process computes forward passes as others still do.

    A model whose parameters are shared out is gathered in each forward pass, in which all
    processes have to take part. The passes that a process computes for others alone are those of
    its last batch again. They go through no hook, so that they count nothing.

    Args:
        data: the data of this process.
        model: the model.
        group: the processes.
    """

    def __init__(self, data: Any, model: torch.nn.Module, group: ProcessGroup) -> None:
        self._data, self._model, self._group = data, model, group
        self._calls: list[tuple[Any, Any]] = []  # of the model, in the newest batch
        self._has_to_share = self._is_repeating = False

    def __iter__(self) -> Iterator[Any]:
        # first, so that it comes before the one in which parameters are gathered
        handle = self._model.register_forward_pre_hook(self._note, prepend=True, with_kwargs=True)
        try:
            yield from self._batches()
        finally:
            handle.remove()
            self._calls = []
            reshard(self._model)

    def _batches(self) -> Iterator[Any]:
        batches = iter(self._data)
        batch = next(batches, _END)
        try:
            own_length = len(self._data)
        except TypeError:
            own_length = None
        lengths, are_there = zip(*self._group.gather((own_length, batch is not _END)), strict=True)
        if not any(are_there):
            return
        self._has_to_share = not all(are_there)
        n_batches = None if None in lengths else max(lengths)
        for i in itertools.count():
            is_own = batch is not _END
            # processes vote only where they do not know how many batches the others have
            is_next = self._group.any(is_own) if n_batches is None else is_own or i < n_batches
            if not is_next:
                return
            if is_own:
                self._calls = []
                yield batch
                batch = next(batches, _END)
            else:
                self._repeat()

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

    def _note(self, model: torch.nn.Module, args: Any, kwargs: Any) -> None:
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
