"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestReport(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_resumes_its_own_state": "a run that was resumed shows that it was"
    }

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))

    def make_components(self):
        return [Step(), use("report", directory=next(self.directories))]
