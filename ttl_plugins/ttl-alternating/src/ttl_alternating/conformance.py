"""How the component is tested, by its own tests and by `ttl check`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch

from ttl_core import TrainTestLoop, use
from ttl_core.testing import ComponentConformance


def _scores(loop: TrainTestLoop) -> Any:
    batch = loop.batch
    return loop.model(batch["inputs"] if isinstance(batch, Mapping) else batch[0])


def _loss(loop: TrainTestLoop) -> torch.Tensor:
    loop.scores = _scores(loop)
    batch = loop.batch
    targets = batch["targets"] if isinstance(batch, Mapping) else batch[1]
    return torch.nn.functional.cross_entropy(loop.scores, targets)


class AlternatingConformance(ComponentConformance):
    """The conformance suite of `alternating`: two layers train in turns."""

    writes = ("buffers",)  # losses have their forward passes in on_loss_compute
    opted_out: ClassVar[Mapping[str, str]] = {
        "test_two_instances_resume_exactly": "it takes the steps, and a second one would take each "
        "of them twice",
    }

    def make_components(self) -> list[Any]:
        """Return the component, which needs no other one."""
        return [
            use(
                "alternating",
                losses={"0": _loss, "2": _loss},
                optimizers={name: partial(torch.optim.SGD, lr=0.1) for name in ("0", "2")},
                predict=_scores,
            )
        ]
