"""The behaviour that every component must have."""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

_KNOWS_LOOPS = {
    "test_instances_share_nothing": "a process knows which loop has trained with a directory last, "
    "so that one that finds its run complete says why"
}


class InDirectories(ComponentConformance):
    """Tests in which the component of each loop has a directory of its own."""

    config = {}  # noqa: RUF012  (it is only read)

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))

    def make_components(self):
        return [Step(), use("checkpoint", directory=next(self.directories), **self.config)]


class TestCheckpoint(InDirectories):
    opted_out = _KNOWS_LOOPS


class TestAsynchronousCheckpoint(InDirectories):
    max_seconds_per_batch = 0.1  # for a checkpoint after every second step
    opted_out = {  # noqa: RUF012
        **_KNOWS_LOOPS,
        "test_takes_streams": "it saves in the middle of epochs, and a stream has no position",
    }
    config = {"asynchronous": True, "every": 2}  # noqa: RUF012
