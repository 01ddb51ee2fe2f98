"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestRunFolder(ComponentConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_instances_share_nothing": "a process knows the folders that its runs have started "
        "in, so that no other run of it continues there"
    }

    @pytest.fixture(autouse=True)
    def use_a_folder(self, tmp_path):
        self.root = tmp_path

    def make_components(self):
        return [Step(), use("run-folder", run_name="a", root=self.root)]


class TestSeed(ComponentConformance):
    writes = ("random numbers",)

    def make_components(self):
        return [Step(), use("seed", seed=0)]
