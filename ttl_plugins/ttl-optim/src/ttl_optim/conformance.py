"""How components that need configuration are tested, by their own tests and by `ttl check`."""

from __future__ import annotations

from typing import Any

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class FreezeConformance(ComponentConformance):
    """The conformance suite of `freeze`."""

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("freeze", patterns={"0.*": 1, "1.weight": None})]


class GradAccumulationConformance(ComponentConformance):
    """The conformance suite of `grad-accumulation`."""

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("grad-accumulation", every=2)]


class LrWarmupConformance(ComponentConformance):
    """The conformance suite of `lr-warmup`."""

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("lr-warmup", n_steps=4)]
