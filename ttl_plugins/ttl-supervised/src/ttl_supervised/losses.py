"""Losses that consist of several: their sum, and the mean of each over an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ttl_core import ArgumentError, add_weighted
from ttl_core.arguments import describe, did_you_mean, number

Part = tuple[Any, Any]
"""The mean loss of a batch, and its weight in the mean of the epoch."""


def checked_weights(weights: Any) -> dict[str, float]:
    """Return what losses are multiplied by in their sum.

    Args:
        weights: numbers by the names of losses, or None.

    Raises:
        ArgumentError: it is something else.
    """
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise ArgumentError(
            f"loss_weights is {describe(weights)}, but has to be numbers by the names of losses, "
            "as {'boxes': 2.0}"
        )
    return {name: number(f"loss_weights[{name!r}]", value) for name, value in weights.items()}


def unused_weights_error(weights: Mapping[str, float]) -> ArgumentError:
    """Return the error for weights of several losses where there is a single one."""
    return ArgumentError(
        f"loss_weights has {', '.join(map(repr, weights))}, but there is a single loss, without a "
        "name. Return a mapping of losses by name, or leave loss_weights out"
    )


class LossParts:
    """The losses of the batches of one epoch, by name.

    Args:
        weights: what losses are multiplied by in their sum, by name; 1 for others.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self._sums: dict[str, Part] = {}  # of losses times weights, and of weights
        self._newest: dict[str, Part] | None = None  # of this batch, until it has ended

    def add(self, losses: Mapping[str, Any], batch_size: Any) -> dict[str, Any]:
        """Return the weighted sum of the losses of a batch, as "loss", and each of them.

        Args:
            losses: mean losses by name, each alone, or with its weight in the mean of the epoch,
                as a pair.
            batch_size: the weight of those that are alone.

        Raises:
            ArgumentError: there is a weight for a loss that there is not.
        """
        for name in self.weights.keys() - losses.keys():
            raise ArgumentError(
                f"loss_weights has {name!r}, but the losses are {', '.join(map(repr, losses))}. "
                f"{did_you_mean(name, losses)}".rstrip()
            )
        parts = {
            name: value if isinstance(value, tuple) else (value, batch_size)
            for name, value in losses.items()
        }
        total = sum(self.weights.get(name, 1.0) * loss for name, (loss, _) in parts.items())
        if self._newest is None:  # else the batch is computed again, and has been added
            self._newest = {name: (loss.detach(), n) for name, (loss, n) in parts.items()}
        return {"loss": total, **{f"loss/{name}": loss for name, (loss, _) in parts.items()}}

    def end_batch(self) -> None:
        """Add the losses of the batch that has ended to the means."""
        if self._newest is not None:
            self._sums = self._with_newest()
            self._newest = None

    def means(self) -> dict[str, Any]:
        """Return the mean of each loss over the epoch, without waiting for the device.

        There is none of a loss of which all weights were 0.
        """
        self.end_batch()
        known = {
            name: part
            for name, part in self._sums.items()
            if isinstance(part[1], torch.Tensor) or part[1]
        }
        return {f"loss/{name}": total / n for name, (total, n) in known.items()}

    def state_dict(self) -> dict[str, list[Any]]:
        """Return the sums so far."""
        return {name: list(part) for name, part in self._with_newest().items()}

    def _with_newest(self) -> dict[str, Part]:
        """Return the sums with the losses of this batch; those of weight 0 add nothing."""
        sums = dict(self._sums)
        for name, (loss, weight) in (self._newest or {}).items():
            sums[name] = add_weighted(*sums.get(name, (0.0, 0)), loss, weight)
        return sums

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with sums.

        Args:
            state: what `state_dict` returned.
        """
        self._sums = {name: (total, n) for name, (total, n) in state.items()}
        self._newest = None
