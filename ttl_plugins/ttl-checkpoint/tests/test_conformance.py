"""What every component has to do."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


@pytest.mark.usefixtures("one_thread")
class InDirectories(ComponentConformance):
    """Give the component of each loop a directory of its own."""

    config = {}  # noqa: RUF012  (nobody writes to it)

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))

    def make_components(self):
        return [Step(), use("checkpoint", directory=next(self.directories), **self.config)]


class TestCheckpoint(InDirectories):
    pass


class TestAsynchronousCheckpoint(InDirectories):
    config = {"asynchronous": True, "every": 2}  # noqa: RUF012
