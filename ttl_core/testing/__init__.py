"""The public kit for authors of components. It needs pytest: `pip install ttl-core[testing]`."""

from ttl_core.testing.conformance import ComponentConformance
from ttl_core.testing.step import Step

__all__ = ["ComponentConformance", "Step"]
