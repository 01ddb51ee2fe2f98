"""The requirements on every component.

What the compiler makes of a graph is not tested here, so graphs run as they are.
"""

import pytest

from ttl_core import use
from ttl_core.testing import ComponentConformance, Step

pytestmark = pytest.mark.usefixtures("one_thread")


class TestCompile(ComponentConformance):
    def make_components(self):
        return [Step(), use("compile", backend="eager")]


class TestCompileRegions(ComponentConformance):
    def make_components(self):
        return [Step(), use("compile", regions="Linear", backend="eager")]
