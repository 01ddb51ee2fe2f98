"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestComponentTimer(ComponentConformance):
    def make_components(self):
        return [Step(), use("component-timer", show=False)]


class TestProfiler(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_two_instances_resume_exactly": "torch has one profiler at a time, and a second one "
        "is an error"
    }

    @pytest.fixture(autouse=True)
    def use_a_directory(self, tmp_path):
        self.directory = tmp_path

    def make_components(self):
        return [Step(), use("profiler", directory=self.directory, wait=1, warmup=1, active=1)]
