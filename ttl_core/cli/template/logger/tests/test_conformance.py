"""What every component has to do: the suite of ttl, for this one."""

from pathlib import Path
from typing import Any

import pytest
from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestMyComponent(ComponentConformance):
    @pytest.fixture(autouse=True)
    def in_folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "values.txt"

    def make_components(self) -> list[Any]:
        # by name, so that the entry point is tested too
        return [Step(), use("my-component", path=self.path)]
