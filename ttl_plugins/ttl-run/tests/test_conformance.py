"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestRunFolder(ComponentConformance):
    @pytest.fixture(autouse=True)
    def use_a_folder(self, tmp_path):
        self.root = tmp_path

    def make_components(self):
        return [Step(), use("run-folder", run_name="a", root=self.root)]


class TestSeed(ComponentConformance):
    def make_components(self):
        # the seed of the random streams that the run is compared with
        return [Step(), use("seed", seed=0)]
