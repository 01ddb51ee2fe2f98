"""What every component has to do."""

import pytest

from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestProgress(ComponentConformance):
    def make_components(self):
        return [Step(), "progress"]


class TestSummary(ComponentConformance):
    def make_components(self):
        return [Step(), "summary"]
