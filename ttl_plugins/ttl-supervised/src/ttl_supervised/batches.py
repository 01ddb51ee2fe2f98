"""Batches of supervised learning: where their inputs and targets are, and on which device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import default_collate

from ttl_core import ArgumentError, split_batch, to_device

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

Batch = tuple[Any, Any]
"""Inputs and targets; the targets are None where a batch has none."""


class BatchSplitter:
    """A `split_batch` that tells lists of samples from pairs, for the batches of one epoch.

    A list of more than two is a list of samples, and so are then the shorter lists of its epoch. Of
    two tensors, mappings or texts alike it says that they may be either, unless a DataLoader has
    collated them.
    """

    def __init__(self) -> None:
        self._n_parts: int | None = None  # of the first list; above 2 they are samples

    def __call__(self, batch: Any, data: Any) -> Batch:
        """Return the inputs and the targets of a batch.

        Args:
            batch: what the data yielded.
            data: the data of the epoch.

        Raises:
            ArgumentError: a list of two may be a pair, or two samples.
        """
        if type(batch) is not list:
            return split_batch(batch)
        if self._n_parts == 2 == len(batch):
            return batch[0], batch[1]
        if self._n_parts is None:
            self._n_parts = len(batch)
            if _are_alike(batch) and not _is_collated(data):
                raise ArgumentError(
                    f"a batch is a list of two {type(batch[0]).__name__}s alike, which may be "
                    "inputs and targets, or two samples without targets. Make a pair a tuple; or "
                    "say what it is: use('supervised', ..., split=lambda batch: (batch, None)) for "
                    "samples, split=lambda batch: (batch[0], batch[1]) for pairs"
                )
        if self._n_parts > 2:
            return batch, None
        if len(batch) > 2:
            raise ArgumentError(
                f"a batch is a list of {len(batch)}, but the first one of the epoch was a list of "
                f"{self._n_parts}: are they samples, or inputs and targets? Say what they are: "
                "use('supervised', ..., split=lambda batch: (batch, None)) for samples"
            )
        return split_batch(batch)


def _are_alike(batch: list[Any]) -> bool:
    """Return whether a list is of two things that are as likely two samples as a pair."""
    match batch:
        case [torch.Tensor() as one, torch.Tensor() as other]:
            is_same = one.shape == other.shape and one.dtype == other.dtype
            return one.dim() > 0 and is_same and bool(one.is_floating_point())
        case [Mapping() as one, Mapping() as other]:
            return one.keys() == other.keys()
        case _:
            return len(batch) == 2 and all(isinstance(item, str | bytes) for item in batch)


def _is_collated(data: Any) -> bool:
    """Return whether data are of a DataLoader, maybe wrapped, that makes lists of pairs."""
    loaders = [data, *getattr(data, "__dict__", {}).values()]
    return any(getattr(loader, "collate_fn", None) is default_collate for loader in loaders)


def number_of_samples(inputs: Any, targets: Any) -> int | None:
    """Return how many samples a list holds, where the first tensor in it does not tell.

    Args:
        inputs: the inputs of a batch.
        targets: its targets, or None.

    Returns:
        The number; None where the inputs are no list of samples, or may be another thing, such as
        the inputs of a model that takes several.

    Example:
        >>> pictures = [torch.ones(3, 8, 8), torch.ones(3, 6, 9)]
        >>> number_of_samples(pictures, [{"label": 1}, {"label": 2}])
        2
        >>> number_of_samples([torch.ones(8, 2), torch.ones(8, 3)], torch.ones(8))
    """
    if not isinstance(inputs, list | tuple) or not inputs or hasattr(inputs, "_fields"):
        return None
    lengths = {_length(item) for item in inputs}
    if isinstance(targets, torch.Tensor):
        return len(inputs) if _length(targets) == len(inputs) else None
    if not isinstance(targets, list | tuple) or len(targets) != len(inputs):
        return None
    lengths |= {_length(item) for item in targets}
    return None if len(lengths) == 1 and None not in lengths else len(inputs)


def first_length(batch: Any) -> int | None:
    """Return the length of the first tensor in nested mappings, lists and tuples, if there is one.

    Example:
        >>> first_length(([torch.ones(3, 8, 8)], [{"label": 1}]))
        3
    """
    if isinstance(batch, torch.Tensor):
        return _length(batch)
    items = batch.values() if isinstance(batch, Mapping) else batch
    if not isinstance(batch, Mapping | list | tuple):
        return None
    return next((n for n in map(first_length, items) if n is not None), None)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, torch.Tensor) and value.dim() else None


def weigh_samples(loop: TrainTestLoop, inputs: Any, targets: Any) -> None:
    """Set the weight of a list of samples to their number, where no component has set one.

    Args:
        loop: the loop.
        inputs: the inputs of its batch.
        targets: its targets, or None.
    """
    n_samples = number_of_samples(inputs, targets)
    if n_samples is not None:
        size = getattr(loop, "batch_size", None)
        # by default it is the length of the first tensor, here of one sample
        if size is None or (isinstance(size, int) and size == first_length(loop.batch)):
            loop.batch_size = n_samples


def function_to_device(function: Any, device: torch.device) -> Any:
    """Return a loss function with its tensors, such as weights of classes, on a device.

    Args:
        function: a module, which is moved itself; a functools.partial, of which a copy is returned
            if it holds tensors; or any other function, which is returned as it is.
        device: the device.
    """
    if isinstance(function, torch.nn.Module):
        return function.to(device)
    if not isinstance(function, partial):
        return function
    inner = function_to_device(function.func, device)
    arguments, keywords = to_device(function.args, device), to_device(function.keywords, device)
    before = (function.func, *function.args, *function.keywords.values())
    after = (inner, *arguments, *keywords.values())
    is_same = all(one is other for one, other in zip(before, after, strict=True))
    return function if is_same else partial(inner, *arguments, **keywords)


def describe(batch: Any) -> str:
    """Return what a batch is, as text.

    Example:
        >>> describe({"pixels": 1, "labels": 2})
        "a dict with the keys 'pixels', 'labels'"
        >>> describe((1, 2, 3)), describe(torch.ones(2, 3))
        ('a tuple of 3', 'a Tensor of shape (2, 3)')
    """
    text = f"a {type(batch).__name__}"
    if isinstance(batch, Mapping):
        return f"{text} with the keys {', '.join(map(repr, list(batch)[:8]))}"
    if isinstance(batch, list | tuple):
        return f"{text} of {len(batch)}"
    return f"{text} of shape {tuple(batch.shape)}" if isinstance(batch, torch.Tensor) else text


def suggested_split(batch: Any) -> str:
    """Return the argument that says where inputs and targets are in a batch, as code."""
    if isinstance(batch, Mapping):
        keys = [str(key) for key in batch]
        targets = next((key for key in ("labels", "label", "target", "y") if key in keys), None)
        inputs = next((key for key in keys if key != targets), "inputs")
        pair = f"(batch[{inputs!r}], batch[{targets or 'targets'!r}])"
    elif isinstance(batch, list | tuple):
        pair = "(batch[0], batch[1])"
    else:
        pair = "(batch.inputs, batch.targets)"
    return f"split=lambda batch: {pair}"
