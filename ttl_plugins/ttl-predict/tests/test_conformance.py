"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestPredictionWriter(ComponentConformance):
    @pytest.fixture(autouse=True)
    def in_a_folder(self, tmp_path):
        self.directory = tmp_path

    def make_components(self):
        writer = use("prediction-writer", directory=self.directory, format="npz", resume=False)
        return [Step(), writer]
