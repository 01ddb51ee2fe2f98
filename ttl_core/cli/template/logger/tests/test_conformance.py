"""What every logger has to do: the suite of ttl, for this one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ttl_core import use
from ttl_core.testing import LoggerConformance, Step


class TestMyComponent(LoggerConformance):
    @pytest.fixture(autouse=True)
    def in_folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "values.txt"

    def make_components(self) -> list[Any]:
        # by name, so that the entry point is tested too
        return [Step(), use("my-component", path=self.path)]

    def read_values(self, logger: Any) -> Iterator[tuple[int, str, float]]:
        for line in logger.path.read_text().splitlines():
            step, name, value = line.split()
            yield int(step), name, float(value)
