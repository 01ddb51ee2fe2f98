"""The component `my-component`."""

from __future__ import annotations

from typing import Any

import torch
from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.arguments import number


class MyComponent(LoopComponent):
    """Log a moving average of the training loss, once an epoch.

    Args:
        half_life: the number of batches after which a loss counts half as much.

    Raises:
        ArgumentError: `half_life` is no number above 0.

    Example:
        >>> from ttl_core.testing import ComponentConformance, Step
        >>> model, data = ComponentConformance.make_model(), ComponentConformance.make_data()
        >>> loop = TrainTestLoop(model, [Step(), MyComponent(half_life=2)], data)
        >>> loop.train(n_epochs=1)
        >>> sorted(loop.metrics)
        ['train/average-loss']
    """

    def __init__(self, *, half_life: float = 10) -> None:
        self.half_life = number("half_life", half_life, above=0)
        self._average: torch.Tensor | None = None

    def on_batch_end(self, loop: TrainTestLoop) -> None:
        """Add the loss of a training batch, without waiting for the device."""
        if loop.is_training:
            loss = loop.loss.detach()
            older = loss if self._average is None else self._average
            decay = 0.5 ** (1 / self.half_life)
            self._average = decay * older + (1 - decay) * loss

    def on_epoch_end(self, loop: TrainTestLoop) -> None:
        """Log the average."""
        if loop.is_training and self._average is not None:
            loop.log({"average-loss": self._average}, level="epoch")

    def state_dict(self) -> dict[str, Any]:
        """Return the average, so that a resumed run continues it."""
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the average of a saved run.

        Args:
            state: what `state_dict()` returned.
        """
        self._average = state["average"]
