"""How components that need configuration are tested, by their own tests and by `ttl check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop


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


class StepWithoutScheduler(Step):
    """Plain steps at a learning rate that stays."""

    name = "step"

    def on_train_begin(self, loop: TrainTestLoop) -> None:
        """Set `optimizer`, and no scheduler."""
        super().on_train_begin(loop)
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1, momentum=0.9)
        loop.scheduler = None


class LrScheduleConformance(ComponentConformance):
    """The conformance suite of `lr-schedule`."""

    writes = ("optimizer",)  # the full learning rate of each of its groups

    def make_components(self) -> list[Any]:
        """Return the component behind steps without a scheduler."""
        return [StepWithoutScheduler(), use("lr-schedule", kind="inverse-sqrt", warmup=1)]


class LrWarmupConformance(ComponentConformance):
    """The conformance suite of `lr-warmup`."""

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("lr-warmup", n_steps=2)]


class ParamGroupsConformance(ComponentConformance):
    """The conformance suite of `param-groups`."""

    writes = ("optimizer",)
    opted_out: ClassVar[Mapping[str, str]] = {
        "test_leaves_optimizers_as_they_were": "groups stay split, as schedulers know them so"
    }

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        patterns = {"2.*": {"lr_scale": 2.0, "weight_decay": 0.1}, "0.bias": {"freeze": True}}
        return [Step(), use("param-groups", patterns=patterns, layer_decay=0.5)]


class SwaConformance(ComponentConformance):
    """The conformance suite of `swa`."""

    def make_components(self) -> list[Any]:
        """Return the component behind plain steps."""
        return [Step(), use("swa", start_epoch=0, lr=0.05, anneal_epochs=2)]
