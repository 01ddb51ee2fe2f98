"""The behaviour that every component must have."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class InDirectories(ComponentConformance):
    """Tests in which the component of each loop has a directory of its own."""

    config = {}  # noqa: RUF012  (it is only read)

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))

    def make_components(self):
        return [Step(), use("checkpoint", directory=next(self.directories), **self.config)]


class TestCheckpoint(InDirectories):
    pass


class TestAsynchronousCheckpoint(InDirectories):
    config = {"asynchronous": True, "every": 2}  # noqa: RUF012
