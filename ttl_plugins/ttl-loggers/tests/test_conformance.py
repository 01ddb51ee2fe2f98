"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class InDirectory(ComponentConformance):
    @pytest.fixture(autouse=True)
    def in_directory(self, tmp_path):
        self.directory = tmp_path


class TestCsv(InDirectory):
    def make_components(self):
        return [Step(), use("csv", directory=self.directory)]


class TestJsonl(InDirectory):
    def make_components(self):
        return [Step(), use("jsonl", directory=self.directory)]


class TestHistory(ComponentConformance):
    def make_components(self):
        return [Step(), "history"]
