"""The requirements on every component."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestLrFinder(ComponentConformance):
    max_seconds_per_batch = 0.5  # the sweep is part of the first

    def make_components(self):
        return [Step(), use("lr-finder", n_steps=20)]


class TestReplayCheck(ComponentConformance):
    def make_components(self):
        return [Step(), use("replay-check", every=2)]
