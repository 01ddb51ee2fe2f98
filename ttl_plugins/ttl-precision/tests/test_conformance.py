"""What every component has to do."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestAmp(ComponentConformance):
    def make_components(self):
        return [Step(), "amp"]


class TestAmpWithScaling(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_does_not_wait_for_the_device": "the steps of an optimizer that is not fused cannot "
        "be skipped on the device, of which it warns"
    }

    def make_components(self):
        return [Step(), use("amp", dtype="fp16")]
