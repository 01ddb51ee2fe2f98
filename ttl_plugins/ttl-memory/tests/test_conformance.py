"""The requirements on every component."""

from ttl_memory.conformance import ActivationCheckpointingConformance

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestActivationCheckpointing(ActivationCheckpointingConformance):
    pass


class TestActivationOffload(ComponentConformance):
    def make_components(self):
        return [Step(), use("activation-offload", min_size=0)]


class TestChannelsLast(ComponentConformance):
    def make_components(self):
        return [Step(), "channels-last"]


class TestGcControl(ComponentConformance):
    max_seconds_per_batch = 0.1  # in which it collects garbage

    def make_components(self):
        return [Step(), use("gc-control", every=2, generation=0)]


class TestPrefetch(ComponentConformance):
    def make_components(self):
        return [Step(), "prefetch"]
