"""The requirements on every component."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestEma(ComponentConformance):
    def make_components(self):
        return [Step(), use("ema", decay=0.5)]


class TestFastOptimizer(ComponentConformance):
    def make_components(self):
        return [Step(), "fast-optimizer"]


class TestFreeze(ComponentConformance):
    def make_components(self):
        return [Step(), use("freeze", patterns={"0.*": 1, "1.weight": None})]


class TestGradAccumulation(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-accumulation", every=2)]


class TestGradClip(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-clip", max_norm=0.1)]


class TestGradClipByValue(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-clip", max_value=0.1)]


class TestLrWarmup(ComponentConformance):
    def make_components(self):
        return [Step(), use("lr-warmup", n_steps=4)]
