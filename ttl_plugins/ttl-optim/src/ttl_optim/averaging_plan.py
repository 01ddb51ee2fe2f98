"""How each tensor of a model is averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch


class AveragingPlan:
    """How each tensor of a model is averaged.

    Args:
        averages: the averages of all, by name.
        buffers: the names of those that are buffers.

    Attributes:
        shapes: the shapes of all.
        averaged: those that are averaged together, and their names, by device and type.
        perhaps_infinite: buffers to average that may hold infinite elements.
        copied: those of which an average means nothing.
        replaced: those that cannot be copied into, such as sparse ones with other indices.
    """

    def __init__(self, averages: Mapping[str, torch.Tensor], buffers: Iterable[str]) -> None:
        groups: dict[Any, tuple[list[str], list[torch.Tensor]]] = {}
        self.shapes = [average.shape for average in averages.values()]
        self.perhaps_infinite: list[tuple[str, torch.Tensor]] = []
        self.copied: list[tuple[str, torch.Tensor]] = []
        self.replaced: list[str] = []
        for name, average in averages.items():
            if not is_plain(average):
                self.replaced.append(name)
            elif not _is_number_like(average) or _is_unit_vector(name, averages):
                self.copied.append((name, average))
            elif name in buffers and not name.endswith(("running_mean", "running_var")):
                self.perhaps_infinite.append((name, average))
            else:
                key = average.device, average.dtype, type(average.data)  # that of a distributed one
                names, group = groups.setdefault(key, ([], []))
                names.append(name)
                group.append(average)
        self.averaged = list(groups.values())


def is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a tensor of the same shape can be copied into one.

    Args:
        tensor: the tensor.
    """
    return tensor.layout is torch.strided and not tensor.is_quantized


def _is_number_like(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_unit_vector(name: str, names: Iterable[str]) -> bool:
    """Return whether a name is that of one of the two vectors that spectral norm keeps.

    The parametrization has `_u` and `_v`; the older function has `weight_u` and `weight_v` beside
    the parameter `weight_orig`, which is `weight_bar` in well-known copies of it.
    """
    stem, other = name[:-1], {"u": "v", "v": "u"}.get(name[-1:])
    if not stem.endswith("_") or other is None or stem + other not in names:
        return False
    is_parametrization = stem.rpartition(".")[2] == "_"
    return is_parametrization or stem + "orig" in names or stem + "bar" in names
