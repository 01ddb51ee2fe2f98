"""What every component has to do: the suite of ttl, for this one."""

from typing import Any

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step


class TestMyComponent(ComponentConformance):
    def make_components(self) -> list[Any]:
        # by name, so that the entry point is tested too
        return [Step(), use("my-component", steps=2)]
