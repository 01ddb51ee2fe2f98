"""What every component has to do."""

from functools import partial

import pytest
import torch

from ttl_core import use
from ttl_core.testing import ComponentConformance

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS = use(
    "supervised", loss_func=torch.nn.CrossEntropyLoss(), optimizer=partial(torch.optim.SGD, lr=0.1)
)


class TestSupervised(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_two_instances_resume_exactly": "it takes the steps, and a second one would take each "
        "of them twice"
    }

    def make_components(self):
        return [STEPS]
