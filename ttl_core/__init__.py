"""A training loop composed of components, by name, from installed packages."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttl_core.batches import describe_batch, map_nested, split_batch, to_device
    from ttl_core.components.arrange import arrange
    from ttl_core.components.bundles import bundle
    from ttl_core.components.component import LoopComponent, leave_out_hooks
    from ttl_core.devices import find_device
    from ttl_core.discovery.configuration import from_config
    from ttl_core.discovery.spec import use
    from ttl_core.errors import (
        ArgumentError,
        ComponentRejectedError,
        ConfigurationError,
        ConflictError,
        DuplicateComponentError,
        GroupError,
        OrderCycleError,
        OrderWarning,
        PluginError,
        RequirementError,
        RunError,
        StateError,
        TTLError,
        UnknownNameError,
        UnknownPointError,
        UnsetVariableError,
    )
    from ttl_core.group import Group
    from ttl_core.hookspecs import hookimpl, hookspec
    from ttl_core.log_record import LogRecord
    from ttl_core.logger import Logger
    from ttl_core.loop import TrainTestLoop
    from ttl_core.missing_metrics import check_can_be_logged, missing_metric_error
    from ttl_core.monitor import Monitor, likely_mode
    from ttl_core.shards import distributed_like, is_sharded, local_part, whole_tensor
    from ttl_core.state.format import check_state
    from ttl_core.state.generators import generator_state
    from ttl_core.state.parts import attach_parts
    from ttl_core.state.protocol import DataWrapper, Stateful, unwrapped
    from ttl_core.state.rank_batches import RankBatches
    from ttl_core.state.sampler import SeededSampler, SeededSamples, sample_generator
    from ttl_core.sums import add_weighted, sum_dtype
    from ttl_core.variables.optimizers import optimizer_parameters

__all__ = [
    "ArgumentError",
    "ComponentRejectedError",
    "ConfigurationError",
    "ConflictError",
    "DataWrapper",
    "DuplicateComponentError",
    "Group",
    "GroupError",
    "LogRecord",
    "Logger",
    "LoopComponent",
    "Monitor",
    "OrderCycleError",
    "OrderWarning",
    "PluginError",
    "RankBatches",
    "RequirementError",
    "RunError",
    "SeededSampler",
    "SeededSamples",
    "StateError",
    "Stateful",
    "TTLError",
    "TrainTestLoop",
    "UnknownNameError",
    "UnknownPointError",
    "UnsetVariableError",
    "add_weighted",
    "arrange",
    "attach_parts",
    "bundle",
    "check_can_be_logged",
    "check_state",
    "describe_batch",
    "distributed_like",
    "find_device",
    "from_config",
    "generator_state",
    "hookimpl",
    "hookspec",
    "is_sharded",
    "leave_out_hooks",
    "likely_mode",
    "local_part",
    "map_nested",
    "missing_metric_error",
    "optimizer_parameters",
    "sample_generator",
    "split_batch",
    "sum_dtype",
    "to_device",
    "unwrapped",
    "use",
    "whole_tensor",
]

_HOMES = {
    "DataWrapper": "state.protocol",
    "Group": "group",
    "LogRecord": "log_record",
    "Logger": "logger",
    "LoopComponent": "components.component",
    "Monitor": "monitor",
    "RankBatches": "state.rank_batches",
    "SeededSampler": "state.sampler",
    "SeededSamples": "state.sampler",
    "Stateful": "state.protocol",
    "TrainTestLoop": "loop",
    "add_weighted": "sums",
    "arrange": "components.arrange",
    "attach_parts": "state.parts",
    "bundle": "components.bundles",
    "check_can_be_logged": "missing_metrics",
    "check_state": "state.format",
    "describe_batch": "batches",
    "distributed_like": "shards",
    "find_device": "devices",
    "from_config": "discovery.configuration",
    "generator_state": "state.generators",
    "hookimpl": "hookspecs",
    "hookspec": "hookspecs",
    "is_sharded": "shards",
    "leave_out_hooks": "components.component",
    "likely_mode": "monitor",
    "local_part": "shards",
    "map_nested": "batches",
    "missing_metric_error": "missing_metrics",
    "optimizer_parameters": "variables.optimizers",
    "sample_generator": "state.sampler",
    "split_batch": "batches",
    "sum_dtype": "sums",
    "to_device": "batches",
    "unwrapped": "state.protocol",
    "use": "discovery.spec",
    "whole_tensor": "shards",
}


def __getattr__(name: str) -> object:
    # Imported when first used: the loop imports torch, which takes a second, and the command needs
    # nothing but discovery.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value
