"""The component `batch-schedule`."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ttl_core import ArgumentError, LoopComponent, RunError, map_nested
from ttl_core.arguments import describe, whole_number

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

_FORM = "a mapping from optimization steps to sizes, beginning with step 0, as {0: 32, 1000: 64}"


class BatchSchedule(LoopComponent):
    """Training batches whose number of samples, or whose sequences, grow over steps.

    Data yield batches of the full size. Of each one the first samples are used, and of each tensor
    with a second dimension as long as the longest one's, the first positions. Other phases see
    whole batches. `loop.batch_size`, by which losses are weighted, follows by default. A batch that
    is a list of samples, as with `collate_fn=list`, has fewer of them.

    In a group of processes a batch is that of all of them together, as in one process.

    Args:
        samples: how many samples a batch has: a mapping from optimization steps, as
            `loop.global_step` counts, to numbers, beginning with step 0.
        length: how long sequences are, in the same way.

    Raises:
        ArgumentError: neither is given, or one is something else; in train(), a batch would have
            fewer samples than there are processes.
        RunError: in training, there is nothing to cut in a batch, or `length` is given for a list
            of samples.

    Example:
        >>> from ttl_core import TrainTestLoop
        >>> class Show(LoopComponent):
        ...     def on_batch_begin(self, loop):
        ...         print(*(tuple(part.shape) for part in loop.batch))
        >>> schedule = BatchSchedule(samples={0: 2, 2: 4}, length={0: 8, 1: 16})
        >>> data = [(torch.ones(4, 16), torch.ones(4))] * 3
        >>> loop = TrainTestLoop(torch.nn.Identity(), [schedule, Show()], data)
        >>> loop.train(n_epochs=1)
        (2, 8) (2,)
        (2, 16) (2,)
        (4, 16) (4,)
    """

    def __init__(
        self,
        samples: Mapping[int, int] | None = None,
        *,
        length: Mapping[int, int] | None = None,
    ) -> None:
        if samples is None and length is None:
            raise ArgumentError(f"neither samples nor length is given. Give one of them, {_FORM}")
        self.samples = None if samples is None else _checked("samples", samples)
        self.length = None if length is None else _checked("length", length)

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Check that each process of a group has a part of each batch."""
        for step, n in (self.samples or {}).items():
            if n < loop.group.size:
                raise ArgumentError(
                    f"'batch-schedule' has samples[{step}]={n}, which all {loop.group.size} "
                    "processes share: each needs a sample of a batch. Give at least "
                    f"{loop.group.size}"
                )

    def on_batch_begin(self, loop: TrainTestLoop) -> None:
        """Cut the batch of a training epoch.

        Raises:
            RunError: there is nothing to cut in it, or only its list of samples is.
        """
        if not loop.is_training:
            return
        is_list = _is_list_of_samples(loop.batch)
        if is_list and self.length is not None:
            raise RunError(
                f"{loop.components.name_of(self)!r} found a list of samples in a batch, "
                f"{describe(loop.batch)}, but has length={self.length!r}: it cuts sequences in "
                "tensors of several samples. Collate them, or leave length out"
            )
        n_samples = _value(self.samples, loop.global_step)
        if n_samples is not None:  # of which each process has every n-th one
            n_samples = len(range(loop.group.rank, n_samples, loop.group.size))
        if is_list:
            loop.batch = loop.batch[:n_samples]
            return
        length = _value(self.length, loop.global_step)
        longest = n_found = 0
        if length is not None:
            longest = max(_lengths(loop.batch), default=0)

        def cut(value: Any) -> Any:
            nonlocal n_found
            if not isinstance(value, torch.Tensor) or not value.dim():
                return value
            n_found += 1
            if n_samples is not None:
                value = value[:n_samples]
            if length is not None and value.dim() > 1 and value.shape[1] == longest:
                value = value[:, :length]
            return value

        loop.batch = map_nested(cut, loop.batch)
        if not n_found or (length is not None and not longest):
            what = "samples" if not n_found else "sequences, tensors with a second dimension,"
            raise RunError(
                f"{loop.components.name_of(self)!r} found no {what} to cut in a batch, "
                f"{describe(loop.batch)}: it cuts tensors, and those in mappings, lists and tuples"
            )


def _checked(name: str, sizes: Any) -> dict[int, int]:
    if not isinstance(sizes, Mapping) or not sizes:
        raise ArgumentError(f"{name} is {describe(sizes)}, but has to be {_FORM}")
    checked = {
        whole_number(f"a step of {name}", step): whole_number(f"{name}[{step!r}]", n, at_least=1)
        for step, n in sizes.items()
    }
    if 0 not in checked:
        raise ArgumentError(f"{name} is {describe(sizes)}, without step 0, but has to be {_FORM}")
    return dict(sorted(checked.items()))


def _value(sizes: Mapping[int, int] | None, step: int) -> int | None:
    if sizes is None:
        return None
    steps = list(sizes)
    return sizes[steps[bisect.bisect_right(steps, step) - 1]]


def _is_list_of_samples(batch: Any) -> bool:
    """Return whether a batch is a list of samples, in place of tensors of all of them.

    Its items are alike, and their tensors do not have the number of samples as their length.

    Example:
        >>> image, images = torch.ones(3, 8, 8), torch.ones(4, 3, 8, 8)
        >>> _is_list_of_samples([(image, 1), (image, 0)]), _is_list_of_samples([images, images])
        (True, False)
    """
    if not isinstance(batch, list | tuple) or hasattr(batch, "_fields") or not batch:
        return False
    first = batch[0]
    if isinstance(first, torch.Tensor):  # most batches are pairs of two kinds of tensors
        if first.dim() == 0 or _kind(batch[-1]) != _kind(first):
            return False
        return len({_kind(item) for item in batch}) == 1 < len({len(item) for item in batch})
    if isinstance(first, Mapping):
        return all(isinstance(item, Mapping) and item.keys() == first.keys() for item in batch)
    if not all(isinstance(item, list | tuple) and len(item) == len(first) for item in batch):
        return False
    if len(batch) == 2 != len(first):  # a list of all inputs, and one of all targets
        return False
    parts = [part for item in batch for part in item]
    has_one_length = all(isinstance(part, torch.Tensor) and part.dim() for part in parts)
    if has_one_length and len({len(part) for part in parts}) == 1:
        return False
    return len({tuple(map(_kind, item)) for item in batch}) == 1


def _kind(value: Any) -> Any:
    return (value.dtype, value.dim()) if isinstance(value, torch.Tensor) else type(value)


def _lengths(batch: Any) -> list[int]:
    """Return the sizes of the second dimensions of all tensors in a batch."""
    found: list[int] = []

    def note(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() > 1:
            found.append(value.shape[1])
        return value

    map_nested(note, batch)
    return found
