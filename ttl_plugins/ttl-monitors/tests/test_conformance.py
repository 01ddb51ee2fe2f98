"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestLrMonitor(ComponentConformance):
    def make_components(self):
        return [Step(), "lr-monitor"]


class TestGradMonitor(ComponentConformance):
    def make_components(self):
        return [Step(), use("grad-monitor", every=1, per_layer=True)]


class TestThroughput(ComponentConformance):
    def make_components(self):
        return [Step(), use("throughput", every=2, peak_flops=1e12)]


class TestMemory(ComponentConformance):
    @pytest.fixture(autouse=True)
    def _constant_memory(self, monkeypatch):
        """Let the process use as much memory in each run, as runs are compared by what they log."""
        monkeypatch.setattr("ttl_monitors.memory.memory_in_use", lambda _: [("process", 2**30)])

    def make_components(self):
        return [Step(), use("memory", every=1)]
