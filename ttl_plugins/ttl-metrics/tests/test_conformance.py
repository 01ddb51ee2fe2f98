"""What every component has to do."""

import pytest
from torchmetrics.classification import MulticlassAccuracy

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestMetrics(ComponentConformance):
    def make_components(self):
        return [Step(), use("metrics", accuracy=MulticlassAccuracy(2))]
