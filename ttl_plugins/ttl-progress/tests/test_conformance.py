"""What every component has to do."""

import pytest

from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestProgress(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_two_instances_resume_exactly": "there is one display: only_once",
    }

    def make_components(self):
        return [Step(), "progress"]


class TestSummary(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_two_instances_resume_exactly": "a second one prints the same: only_once",
    }

    def make_components(self):
        return [Step(), "summary"]
