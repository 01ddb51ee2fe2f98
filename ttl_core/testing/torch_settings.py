"""The settings of torch that hold for the whole process, or this thread: read, and restored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ttl_core.testing.outcome import Facts


class Setting(NamedTuple):
    """A setting that can be restored.

    Attributes:
        read: returns its value.
        write: takes a value that was read.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]


def _autocast(kind: str) -> tuple[Any, ...]:
    return torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _set_autocast(kind: str, value: tuple[Any, ...]) -> None:
    torch.set_autocast_enabled(kind, value[0])
    torch.set_autocast_dtype(kind, value[1])


def _determinism() -> tuple[bool, ...]:
    deterministic: Any = torch.utils.deterministic
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        deterministic.fill_uninitialized_memory,
    )


def _set_determinism(value: tuple[bool, ...]) -> None:
    torch.use_deterministic_algorithms(value[0], warn_only=value[1])
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = value[2]


def _cudnn() -> tuple[bool, ...]:
    cudnn: Any = torch.backends.cudnn
    return cudnn.enabled, cudnn.deterministic, cudnn.benchmark


def _set_cudnn(value: tuple[bool, ...]) -> None:
    cudnn: Any = torch.backends.cudnn
    cudnn.enabled, cudnn.deterministic, cudnn.benchmark = value


SETTINGS = {
    "the default dtype": Setting(torch.get_default_dtype, torch.set_default_dtype),
    "the default device": Setting(torch.get_default_device, torch.set_default_device),
    "the grad mode": Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "anomaly detection": Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "autocast on the CPU": Setting(partial(_autocast, "cpu"), partial(_set_autocast, "cpu")),
    "autocast on CUDA": Setting(partial(_autocast, "cuda"), partial(_set_autocast, "cuda")),
    "deterministic algorithms": Setting(_determinism, _set_determinism),
    "torch.backends.cudnn": Setting(_cudnn, _set_cudnn),
    "the precision of matrix products": Setting(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    ),
    "the number of threads of torch": Setting(torch.get_num_threads, torch.set_num_threads),
}
"""The settings that can be restored, by name."""


_MODULES = torch.nn.modules.module
_OF_MODULES = (
    _MODULES._global_forward_hooks,
    _MODULES._global_forward_pre_hooks,
    _MODULES._global_backward_hooks,
    _MODULES._global_backward_pre_hooks,
)
_OF_OPTIMIZERS = (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)
GLOBAL_HOOKS: tuple[dict[Any, Any], ...] = (*_OF_MODULES, *_OF_OPTIMIZERS)
"""The hooks of all modules and optimizers, by their numbers."""

PRINTED: Any = torch._tensor_str.PRINT_OPTS
"""The options of printed tensors, as its attributes."""

PATCHED: tuple[tuple[Any, str], ...] = (
    *((torch.nn.Module, "__call__"), (torch.Tensor, "backward"), (torch, "save")),
)
"""What components may replace in torch: modules or classes, and the names in them."""


def torch_settings() -> Facts:
    """Return the settings of torch that hold for the whole process, or this thread."""
    return {
        **{name: str(setting.read()) for name, setting in SETTINGS.items()},
        "the inference mode": str(torch.is_inference_mode_enabled()),
        "the cache of autocast": str(torch.is_autocast_cache_enabled()),
        "flushing of denormal numbers": str(_is_flushing()),
        **{f"the option {n!r} of printed tensors": repr(v) for n, v in vars(PRINTED).items()},
        "the modes of functions of torch": str(
            (
                torch._C._len_torch_function_stack(),
                torch._C._len_torch_dispatch_stack(),
            )
        ),
        "the global hooks of modules": str([len(one) for one in _OF_MODULES]),
        "the global hooks of optimizers": str([len(one) for one in _OF_OPTIMIZERS]),
        **{f"{home.__name__}.{name}": named(getattr(home, name)) for home, name in PATCHED},
    }


_DENORMAL = torch.tensor([1e-310], dtype=torch.float64)


def _is_flushing() -> bool:
    return float(_DENORMAL * 1) == 0


def named(value: object) -> str:
    """Return the name of a function or object, which tells it from others."""
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{name} ({id(value):#x})" if value is not None else "None"
