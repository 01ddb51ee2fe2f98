"""How components that need configuration are tested, by their own tests and by `ttl check`."""

from __future__ import annotations

from typing import Any

import torch

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class MixupConformance(ComponentConformance):
    """The conformance suite of `mixup`."""

    writes = ("batch",)

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("mixup", n_classes=2)]


class CutmixConformance(ComponentConformance):
    """The conformance suite of `cutmix`, on images of 2 by 2."""

    writes = ("batch",)

    @staticmethod
    def make_model() -> torch.nn.Module:
        """Return the tiny model, for images."""
        return torch.nn.Sequential(
            torch.nn.Flatten(), *ComponentConformance.make_model().children()
        )

    @staticmethod
    def make_data(n_batches: int = 3) -> list[Any]:
        """Return the tiny data, as images.

        Args:
            n_batches: how many batches.
        """
        data = ComponentConformance.make_data(n_batches)
        return [(inputs.view(-1, 1, 2, 2), targets) for inputs, targets in data]

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("cutmix", n_classes=2)]


class BatchScheduleConformance(ComponentConformance):
    """The conformance suite of `batch-schedule`."""

    writes = ("batch",)

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("batch-schedule", samples={0: 3, 2: 6})]
