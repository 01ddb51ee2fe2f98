"""The requirements on the component."""

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestTrackio(ComponentConformance):
    def make_components(self):
        return [Step(), use("trackio", project="conformance")]
