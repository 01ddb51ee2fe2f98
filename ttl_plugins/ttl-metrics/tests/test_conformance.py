"""What every component has to do."""

import pytest
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestMetrics(ComponentConformance):
    writes = ("loss",)  # None at the start of an epoch, to see whether there is one
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_does_not_wait_for_the_device": "on the CPU it adds up Python numbers, which is "
        "faster, and reading them does not wait there; on a device it adds up tensors",
        "test_two_instances_resume_exactly": "a second one that logs the loss too is refused",
    }

    def make_components(self):
        return [Step(), use("metrics", accuracy=MulticlassAccuracy(2))]
