"""The requirements on every component."""

from ttl_augment.conformance import (
    BatchScheduleConformance,
    CutmixConformance,
    MixupConformance,
)

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestMixup(MixupConformance):
    pass


class TestCutmix(CutmixConformance):
    pass


class TestLabelSmoothing(ComponentConformance):
    def make_components(self):
        return [Step(), use("label-smoothing", smoothing=0.2)]


class TestBatchSchedule(BatchScheduleConformance):
    pass
