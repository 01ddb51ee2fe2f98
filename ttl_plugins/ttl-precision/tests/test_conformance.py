"""What every component has to do."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestAmp(ComponentConformance):
    def make_components(self):
        return [Step(), "amp"]


class TestAmpWithScaling(ComponentConformance):
    def make_components(self):
        return [Step(), use("amp", dtype="fp16")]
