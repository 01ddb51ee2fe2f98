"""The requirements on the component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestMlflow(ComponentConformance):
    max_seconds_per_batch = 0.1  # for the first value, with which the run is created
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_resumes_its_own_state": "within a process, a run that goes back writes its values "
        "again"
    }

    @pytest.fixture(autouse=True)
    def _store(self, store):
        self.store = store

    def make_components(self):
        return [Step(), use("mlflow", tracking_uri=self.store, experiment="conformance")]
