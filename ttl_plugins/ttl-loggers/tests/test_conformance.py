"""The requirements on every component, and on every logger."""

import csv
import json

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, LoggerConformance, Step


class InDirectories(LoggerConformance):
    opted_out = {  # noqa: RUF012  (it is only read)
        "test_resumes_its_own_state": "it is a position in the file, and how far that was written "
        "depends on the time"
    }

    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path):
        self.directories = (tmp_path / str(number) for number in range(1000))


class TestCsv(InDirectories):
    def make_components(self):
        return [Step(), use("csv", directory=next(self.directories))]

    def read_values(self, logger):
        with logger.path.open() as file:
            for row in csv.DictReader(file):
                numbers = {name: value for name, value in row.items() if "/" in name and value}
                yield from ((int(row["step"]), name, float(v)) for name, v in numbers.items())


class TestJsonl(InDirectories):
    def make_components(self):
        return [Step(), use("jsonl", directory=next(self.directories))]

    def read_values(self, logger):
        for line in logger.path.read_text().splitlines():
            row = json.loads(line)
            numbers = {n: v for n, v in row.items() if "/" in n and isinstance(v, int | float)}
            yield from ((row["step"], name, value) for name, value in numbers.items())


class TestHistory(ComponentConformance):
    def make_components(self):
        return [Step(), "history"]
