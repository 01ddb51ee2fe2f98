"""The requirements on every component."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestLrMonitor(ComponentConformance):
    def make_components(self):
        return [Step(), "lr-monitor"]


class TestGradMonitor(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-monitor", every=1, per_layer=True)]


class TestThroughput(ComponentConformance):
    writes = ("torch",)  # a mode that counts the operations of the first batch

    def make_components(self):
        return [Step(), use("throughput", every=2, peak_flops=1e12)]


class TestMemory(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_is_validated_in_mid_epoch": "it logs the memory of the process, which varies"
    }

    def make_components(self):
        return [Step(), use("memory", every=1)]
