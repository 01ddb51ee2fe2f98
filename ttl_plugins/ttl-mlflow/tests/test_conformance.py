"""The requirements on the component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestMlflow(ComponentConformance):
    @pytest.fixture(autouse=True)
    def _store(self, store):
        self.store = store

    def make_components(self):
        return [Step(), use("mlflow", tracking_uri=self.store, experiment="conformance")]
