"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestReport(ComponentConformance):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.directory = tmp_path

    def make_components(self):
        return [Step(), use("report", directory=self.directory)]
