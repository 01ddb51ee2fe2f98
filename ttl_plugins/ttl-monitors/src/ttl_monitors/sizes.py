"""How much memory is in use, and what for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn.parameter import is_lazy

if TYPE_CHECKING:
    from ttl_core import TrainTestLoop

Tensors: TypeAlias = Iterable[tuple[str, Any]]

_STATM = Path("/proc/self/statm")


def memory_in_use(model: torch.nn.Module) -> Iterator[tuple[str, float]]:
    """Yield what memory is in use, and what peaks there were, by name, in bytes.

    Args:
        model: the model, on the devices of which to look.
    """
    now = 0
    if _STATM.exists():
        now = int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        yield "host", now
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux updates the peak later than the present value, which may be above it
        yield "host-peak", max(now, peak if sys.platform == "darwin" else peak * 1024)
    for device in sorted({str(parameter.device) for parameter in model.parameters()}):
        if device not in ("cpu", "meta"):
            module = torch.get_device_module(torch.device(device).type)
            if hasattr(module, "max_memory_allocated"):  # not all types of devices count
                yield device, module.memory_allocated(device)
                yield f"{device}-peak", module.max_memory_allocated(device)


def describe_sizes(loop: TrainTestLoop) -> str:
    """Return what tensors the loop knows of, the largest kind first, as text.

    Args:
        loop: the loop.
    """
    found = []
    for kind, tensors in _tensors_by_kind(loop).items():
        sizes = [(tensor.nbytes, name) for name, tensor in tensors if _has_size(tensor)]
        if sizes:
            found.append((sum(size for size, _ in sizes), kind, *max(sizes)))
    found.sort(reverse=True)
    return "; ".join(
        f"{kind} {as_text(total)}" + (f" ({name} {as_text(size)})" if name else "")
        for total, kind, size, name in found
    )


def _tensors_by_kind(loop: TrainTestLoop) -> dict[str, Tensors]:
    model, optimizers = loop.model, getattr(loop, "optimizers", ())
    names = {parameter: name for name, parameter in model.named_parameters()}
    states = [(names.get(p, "others"), s) for each in optimizers for p, s in each.state.items()]
    return {
        "parameters": model.named_parameters(),
        "buffers": model.named_buffers(),
        "gradients": [(name, parameter.grad) for name, parameter in model.named_parameters()],
        "optimizer states": [
            (f"{key} of {name}", value) for name, state in states for key, value in state.items()
        ],
        "the batch": _leaves("", getattr(loop, "batch", None)),
        "scores": _leaves("", getattr(loop, "scores", None)),
    }


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what nested mappings, lists and tuples hold, and where."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(f"{path}[{key!r}]", item)


def _has_size(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not is_lazy(value)


def as_text(n_bytes: float) -> str:
    """Return a size as text.

    Example:
        >>> as_text(1536), as_text(3 * 2**30)
        ('1.5 KiB', '3.0 GiB')
    """
    for unit in ("bytes", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}" if unit != "bytes" else f"{n_bytes:.0f} bytes"
        n_bytes /= 1024
    return f"{n_bytes:.1f} GiB"
