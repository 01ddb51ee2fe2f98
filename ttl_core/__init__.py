"""A training loop put together from components, by name, from anybody's packages."""

from typing import TYPE_CHECKING

from ttl_core.components import LoopComponent, arrange
from ttl_core.discovery import use
from ttl_core.errors import (
    ArgumentError,
    ComponentRejectedError,
    ConfigurationError,
    DuplicateComponentError,
    OrderCycleError,
    OrderWarning,
    PluginError,
    RequirementError,
    RunError,
    TTLError,
    UnknownNameError,
    UnknownPointError,
    UnsetVariableError,
)
from ttl_core.hookspecs import hookimpl, hookspec

if TYPE_CHECKING:
    from ttl_core.loop import TrainTestLoop

__all__ = [
    "ArgumentError",
    "ComponentRejectedError",
    "ConfigurationError",
    "DuplicateComponentError",
    "LoopComponent",
    "OrderCycleError",
    "OrderWarning",
    "PluginError",
    "RequirementError",
    "RunError",
    "TTLError",
    "TrainTestLoop",
    "UnknownNameError",
    "UnknownPointError",
    "UnsetVariableError",
    "arrange",
    "hookimpl",
    "hookspec",
    "use",
]


def __getattr__(name: str) -> object:
    if name == "TrainTestLoop":  # its module imports torch, which takes a second
        from ttl_core.loop import TrainTestLoop

        globals()[name] = TrainTestLoop
        return TrainTestLoop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
