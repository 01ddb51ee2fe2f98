"""The validation sets of a loop, and how many batches its data have, as Lightning counts them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


def _set_names(loop: TrainTestLoop) -> list[str | None]:
    return [*loop.valid_data] if isinstance(loop.valid_data, Mapping) else [None]


def set_index(loop: TrainTestLoop) -> int:
    """Return the index of the current validation set among those of the loop; 0 for another."""
    names = _set_names(loop)
    return names.index(loop.data_name) if loop.data_name in names else 0


def is_edge_set(loop: TrainTestLoop, edge: int) -> bool:
    """Return whether the current validation set is the first one (0) or the last one (-1)."""
    names = _set_names(loop)
    return loop.data_name not in names or loop.data_name == names[edge]


def _length(data: Any) -> float:
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return math.inf


def n_valid_batches(loop: TrainTestLoop) -> list[float]:
    """Return the number of batches of each validation set."""
    data = loop.valid_data
    if data is None:
        return []
    lengths = [_length(one) for one in (data.values() if isinstance(data, Mapping) else [data])]
    if loop.is_validating:
        lengths[set_index(loop)] = loop.n_batches or math.inf
    return lengths


def n_batches(loop: TrainTestLoop, phase: str) -> float:
    """Return the number of batches of an epoch, as far as it is known; infinity for a stream.

    Args:
        loop: the loop.
        phase: "train", "test" or "predict".
    """
    if loop.epoch_desc == phase and loop.n_batches:
        return loop.n_batches
    return _length(loop.train_data) if phase == "train" else 0


def is_last_batch(loop: TrainTestLoop) -> bool:
    """Return whether the current batch is known to be the last one of its epoch."""
    number = vars(loop).get("batch_num")
    return number is not None and number + 1 == loop.n_batches
