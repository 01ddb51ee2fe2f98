"""The requirements on the component."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestTensorboard(ComponentConformance):
    max_seconds_per_batch = 0.02  # for histograms
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_resumes_its_own_state": "it is a position in the file, and how far that was written "
        "depends on the time"
    }

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))

    def make_components(self):
        return [Step(), use("tensorboard", directory=next(self.directories), histograms=4)]
