"""What every component has to do."""

from ttl_core.testing import ComponentConformance, Step


class TestProgress(ComponentConformance):
    def make_components(self):
        return [Step(), "progress"]
