"""Copies of a state, taken while training continues."""

from __future__ import annotations

import io
import itertools
from collections import OrderedDict
from copy import deepcopy
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ttl_core.shards import is_sharded, is_stored


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
            if is_lazy(value) or is_stored(value):
                return value  # it has no values yet, or never changes
            key: Any = id(value)
            if is_dense(value) and not (value.is_conj() or value.is_neg()) and value.numel():
                pointer = value.data_ptr()
                key = pointer, value.shape, value.stride(), value.dtype, value.device
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


def is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one block of memory with strides."""
    is_dense = tensor.layout is torch.strided and not (tensor.is_nested or tensor.is_quantized)
    return is_dense and not (tensor.is_meta or is_sharded(tensor) or is_stored(tensor))


def _copy_of(tensor: torch.Tensor, out: object) -> torch.Tensor:
    if tensor.is_quantized or (tensor.is_nested and tensor.layout is torch.strided):
        stream = io.BytesIO()  # these cannot be copied otherwise
        torch.save(tensor.cpu(), stream)
        stream.seek(0)
        copy: torch.Tensor = torch.load(stream, weights_only=True)
        return copy
    if not is_dense(tensor) or type(tensor) is not torch.Tensor:
        return tensor.to("cpu", copy=True)
    if not _fits(out, tensor):
        out = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    assert isinstance(out, torch.Tensor)
    out.copy_(tensor, non_blocking=True)
    return out


def _fits(out: object, tensor: torch.Tensor) -> bool:
    """Return whether memory can be reused for the copy of a tensor."""
    return (
        isinstance(out, torch.Tensor)
        and is_dense(out)
        and (out.shape, out.stride(), out.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)
        # one number may not stand for several, as in a tensor that was expanded
        and (out.is_contiguous() or out.stride() == torch.empty_like(out, device="meta").stride())
    )
