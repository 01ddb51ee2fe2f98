"""Copies of a state, taken while training continues."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from copy import deepcopy
from typing import Any

import torch


def snapshot(state: Any, out: Any = None) -> Any:
    """Return a copy of a state that further training does not change, with tensors on the CPU.

    Tensors that share their memory as a whole, as tied weights do, share it in the copy too.

    Args:
        state: the nested value to copy.
        out: an earlier copy that is no longer needed, whose memory is reused where it fits.
    """
    copies: dict[Any, torch.Tensor] = {}
    taken: set[int] = set()  # memory of the earlier copy that is in use again
    devices: set[torch.device] = set()

    def copied(value: Any, out: Any) -> Any:
        if isinstance(value, torch.Tensor):
            same = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
            is_simple = value.layout is torch.strided and not (value.is_conj() or value.is_neg())
            key = same if is_simple and value.numel() else id(value)
            if key not in copies:
                copies[key] = _copy_of(value.detach(), None if id(out) in taken else out)
                taken.add(id(copies[key]))
                devices.add(value.device)
            return copies[key]
        if type(value) in (dict, OrderedDict):
            by_key = out if isinstance(out, dict) else {}
            copy = type(value)((key, copied(item, by_key.get(key))) for key, item in value.items())
            if type(copy) is OrderedDict:  # with the versions of modules, in a model's state
                vars(copy).update(deepcopy(vars(value)))
            return copy
        if type(value) in (list, tuple):
            in_order = out if isinstance(out, list | tuple) else ()
            pairs = itertools.zip_longest(value, in_order[: len(value)])
            return type(value)(copied(item, before) for item, before in pairs)
        return deepcopy(value)

    result = copied(state, out)
    for device in devices:
        if device.type in ("cuda", "xpu"):  # copies to the host may be on their way
            getattr(torch, device.type).synchronize(device)
    return result


def _copy_of(tensor: torch.Tensor, out: object) -> torch.Tensor:
    if tensor.layout is not torch.strided or type(tensor) is not torch.Tensor:
        return tensor.to("cpu", copy=True)
    if not isinstance(out, torch.Tensor) or (out.shape, out.stride(), out.dtype) != (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
    ):
        out = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    out.copy_(tensor, non_blocking=True)
    return out
