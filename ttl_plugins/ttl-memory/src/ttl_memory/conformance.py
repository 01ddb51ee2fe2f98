"""How components that need configuration are tested, by their own tests and by `ttl check`."""

from __future__ import annotations

from typing import Any

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class ActivationCheckpointingConformance(ComponentConformance):
    """The conformance suite of `activation-checkpointing`."""

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("activation-checkpointing", modules=["0", "2"])]
