"""How the component is tested, by its own tests and by `ttl check`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch

from ttl_core import use
from ttl_core.testing import ComponentConformance

_STEPS = use(
    "supervised", loss_func=torch.nn.CrossEntropyLoss(), optimizer=partial(torch.optim.SGD, lr=0.1)
)


class SupervisedConformance(ComponentConformance):
    """The conformance suite of `supervised`."""

    opted_out: ClassVar[Mapping[str, str]] = {
        "test_two_instances_resume_exactly": "it takes the steps, and a second one would take each "
        "of them twice"
    }

    def make_components(self) -> list[Any]:
        """Return the component, which needs no other one."""
        return [_STEPS]
