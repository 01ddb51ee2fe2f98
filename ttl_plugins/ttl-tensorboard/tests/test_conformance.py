"""The requirements on the component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestTensorboard(ComponentConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    def make_components(self):
        return [Step(), use("tensorboard", directory=self.directory, histograms=2)]
