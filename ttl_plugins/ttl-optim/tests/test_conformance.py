"""The requirements on every component."""

from ttl_optim.conformance import (
    FreezeConformance,
    GradAccumulationConformance,
    LrScheduleConformance,
    LrWarmupConformance,
    ParamGroupsConformance,
    SwaConformance,
)

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestEma(ComponentConformance):
    def make_components(self):
        return [Step(), use("ema", decay=0.04)]


class TestFastOptimizer(ComponentConformance):
    def make_components(self):
        return [Step(), "fast-optimizer"]


class TestFreeze(FreezeConformance):
    pass


class TestGradAccumulation(GradAccumulationConformance):
    pass


class TestGradClip(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-clip", max_norm=0.1)]


class TestGradClipByValue(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-clip", max_value=0.1)]


class TestLrSchedule(LrScheduleConformance):
    pass


class TestLrWarmup(LrWarmupConformance):
    pass


class TestSam(ComponentConformance):
    writes = ("weights", "gradients")

    def make_components(self):
        return [Step(), use("sam", rho=0.05)]


class TestParamGroups(ParamGroupsConformance):
    pass


class TestSwa(SwaConformance):
    pass
