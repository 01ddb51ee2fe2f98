"""The requirements on every component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestPredictionWriter(ComponentConformance):
    @pytest.fixture(autouse=True)
    def in_folders(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))

    def make_components(self):
        directory = next(self.directories)
        writer = use("prediction-writer", directory=directory, format="npz", resume=False)
        return [Step(), writer]
