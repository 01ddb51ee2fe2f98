"""The public kit for authors of components. It needs pytest: `pip install ttl-core[testing]`."""

from ttl_core.testing.conformance import ComponentConformance
from ttl_core.testing.fake_distribution import fake_distribution
from ttl_core.testing.logger_conformance import LoggerConformance
from ttl_core.testing.recorder import HookCall, HookRecorder
from ttl_core.testing.step import Step
from ttl_core.testing.tiny import Stream, tiny_data, tiny_loop, tiny_model

__all__ = [
    "ComponentConformance",
    "HookCall",
    "HookRecorder",
    "LoggerConformance",
    "Step",
    "Stream",
    "fake_distribution",
    "tiny_data",
    "tiny_loop",
    "tiny_model",
]
