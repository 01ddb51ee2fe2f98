"""What every component has to do."""

from torchmetrics.classification import MulticlassAccuracy

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestMetrics(ComponentConformance):
    def make_components(self):
        return [Step(), use("metrics", accuracy=MulticlassAccuracy(2))]
