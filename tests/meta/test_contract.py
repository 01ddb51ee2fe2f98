"""The public contract, written a second time, so that no change of it is unintended."""

import importlib
import inspect

import pytest

import ttl_core
import ttl_core.testing
from ttl_core import LoopComponent
from ttl_core.hookspecs import POINTS, CallbackPoints


def test_the_public_names_are_these():
    """No public name is added or removed unintentionally."""
    assert set(ttl_core.__all__) == {
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
    }
    assert set(ttl_core.testing.__all__) == {
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
    }


def test_every_public_name_exists_and_is_documented():
    """Each public name can be imported and has a docstring."""
    for module in (ttl_core, ttl_core.testing):
        for name in module.__all__:
            assert inspect.getdoc(getattr(module, name))


@pytest.mark.parametrize("name", ["arguments", "files"])
def test_all_functions_of_a_public_module_are_in_its_reference(name):
    """Which shows what `__all__` lists."""
    module = importlib.import_module(f"ttl_core.{name}")
    own = {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    assert sorted(own) == sorted(module.__all__)


def test_the_points_and_their_arguments_are_these():
    """Callback points, their arguments and their firing order do not change unintentionally."""
    arguments = {p: inspect.signature(getattr(LoopComponent(), p)).parameters for p in POINTS}
    found = [f"{point}({', '.join(names)})" for point, names in arguments.items()]
    assert found == [
        "around_run(loop)",
        "on_train_begin(loop)",
        "on_test_begin(loop)",
        "on_predict_begin(loop)",
        "around_epoch(loop)",
        "on_epoch_begin(loop)",
        "on_grads_reset(loop)",
        "on_batch_begin(loop)",
        "on_forward_pass(loop)",
        "on_loss_compute(loop)",
        "on_backward_pass(loop)",
        "on_optim_step(loop)",
        "on_batch_end(loop)",
        "on_epoch_end(loop)",
        "on_safe_point(loop)",
        "on_train_end(loop)",
        "on_test_end(loop)",
        "on_predict_end(loop)",
        "on_log(loop, metrics, level)",
        "on_exception(loop, exception)",
    ]


@pytest.mark.parametrize("point", POINTS)
def test_every_point_says_when_it_fires(point):
    """The docstring of each callback point says when it fires."""
    text = inspect.getdoc(getattr(CallbackPoints, point))
    assert "Fires" in text or "Surround" in text


def test_every_error_is_a_ttl_error_and_a_built_in_one():
    """Each error also inherits the built-in error that fits."""
    errors = importlib.import_module("ttl_core.errors")
    for name in errors.__all__:
        error = getattr(errors, name)
        if error not in (errors.TTLError, errors.OrderWarning):
            assert issubclass(error, errors.TTLError)
            assert any(base.__module__ == "builtins" for base in error.__bases__)
