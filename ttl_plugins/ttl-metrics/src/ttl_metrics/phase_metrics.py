"""The metrics of one phase, and how they are given.

This module and what it imports take seconds, as torchmetrics does; `metrics` imports them when a
metric is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torchmetrics import MetricCollection

from ttl_core import ArgumentError
from ttl_metrics.held_metrics import HeldMetrics


class GivenMetrics(NamedTuple):
    """The metrics that were given for a phase.

    Attributes:
        collection: a collection of them, which is not updated itself.
        can_share_states: whether metrics in it may be updated together.
    """

    collection: MetricCollection
    can_share_states: bool

    @classmethod
    def of(cls, what: str, given: Any) -> GivenMetrics:
        """Return what was given as a collection.

        Args:
            what: the name of the argument, for the error.
            given: its value.

        Raises:
            ArgumentError: it is neither a metric nor several.
        """
        if isinstance(given, MetricCollection):
            return cls(given, can_share_states=True)
        try:
            # finding groups of metrics that can share state compares values, which waits for the
            # device
            collection = MetricCollection(
                dict(given) if isinstance(given, Mapping) else given, compute_groups=False
            )
        except (KeyError, ValueError) as error:
            raise ArgumentError(
                f"{what} is {given!r}, but a torchmetrics.Metric, a MetricCollection or a dict of "
                f"metrics by name was expected: {error}"
            ) from error
        return cls(collection, can_share_states=False)

    def names(self) -> Iterable[Any]:
        """Return the names under which they are logged."""
        return self.collection.keys()

    def copy(self) -> PhaseMetrics:
        """Return metrics of their own for a phase."""
        return PhaseMetrics(self.collection.clone(), can_share_states=self.can_share_states)


class PhaseMetrics:
    """The metrics of one phase.

    Args:
        collection: the metrics. They belong to this object from then on.
        can_share_states: whether those with the same states are updated together.
    """

    def __init__(self, collection: MetricCollection, *, can_share_states: bool) -> None:
        self._collection = collection
        # without shared states, a collection only takes longer than its metrics one by one
        self._updated: list[Any] = [collection]
        if not can_share_states:
            self._updated = list(collection.values(copy_state=False))
        self._device: torch.device | None = None
        self._is_reset = False
        self.reset()
        self._held = HeldMetrics(collection)

    def reset(self) -> None:
        """Drop what was gathered, unless nothing was."""
        if not self._is_reset:
            self._collection.reset()
            self._is_reset = True

    def update(self, *arguments: Any) -> None:
        """Update the metrics with a batch, on the device of its first tensor."""
        for argument in arguments:
            if isinstance(argument, torch.Tensor):
                if argument.device != self._device:
                    self._device = argument.device
                    self._held.move(self._device)
                break
        self._is_reset = False
        for metric in self._updated:
            metric.update(*arguments)

    def compute(self) -> dict[str, Any]:
        """Return the values of what was gathered, by name."""
        return self._collection.compute()

    def state_dict(self) -> dict[str, Any]:
        """Return what was gathered, and what metrics keep over epochs.

        Raises:
            StateError: a metric holds something that could not be loaded.
        """
        return {
            "metrics": self._collection.state_dict(),
            "held": self._held.state_dict(),
            "attributes": self._held.attributes(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what was gathered, and what metrics had kept.

        Args:
            state: what `state_dict` returned, or a part of it.

        Raises:
            StateError: the state is of other metrics.
        """
        self._is_reset = False
        self._device = None  # the loaded tensors are where they were saved, or on the CPU
        self._held.load(state.get("held", {}), state.get("attributes", {}))  # none in old states
        if "metrics" in state:
            self._collection.load_state_dict(state["metrics"])
        # earlier versions counted updates here, the first those of the loss
        counts = state.get("counts", ())[1:]
        for metric, count in zip(self._collection.values(copy_state=False), counts, strict=False):
            metric._update_count = count  # not in its state, but compute() warns without it
