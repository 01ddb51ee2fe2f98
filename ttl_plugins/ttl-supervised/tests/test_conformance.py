"""What every component has to do."""

import pytest
from ttl_supervised.conformance import SupervisedConformance

pytestmark = pytest.mark.usefixtures("one_thread")


class TestSupervised(SupervisedConformance):
    pass
