"""Tensors of which each process of a group has a part: the distributed tensors of torch.

And tensors of which each file of a checkpoint has a part, as such processes have written them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch


class Slice(NamedTuple):
    """Where a part lies in a tensor.

    Attributes:
        start: its first index in each dimension.
        size: how many there are in each.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]


class StoredTensor(torch.Tensor):
    """A tensor whose parts are in files, which takes no memory until it is read.

    Operations see all of it, and return plain tensors. Nothing can be written to it.

    Args:
        shape: its shape.
        dtype: its type.
        parts: its parts, and where they lie in it.
    """

    _parts: Sequence[tuple[Slice, torch.Tensor]]

    @staticmethod
    def __new__(
        cls, shape: Sequence[int], dtype: torch.dtype, parts: Sequence[tuple[Slice, torch.Tensor]]
    ) -> Self:
        """Make it without values."""
        make = torch.Tensor._make_wrapper_subclass
        made: Self = make(cls, shape, dtype=dtype)
        made._parts = parts
        return made

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute with all of it."""
        if func._schema.is_mutable and isinstance(args[0], cls):
            raise RuntimeError("a tensor in a file cannot be changed: take whole_tensor() of it")
        kwargs = {name: _read(value) for name, value in (kwargs or {}).items()}
        return func(*[_read(value) for value in args], **kwargs)

    def read(self, where: Slice | None = None) -> torch.Tensor:
        """Return a part of it, in memory of its own.

        Args:
            where: which; None for all of it.
        """
        where = where or Slice((0,) * self.ndim, tuple(self.shape))
        result = torch.empty(where.size, dtype=self.dtype)
        for held, part in self._parts:
            source, target = [], []
            for from_, n_from, to, n_to in zip(*held, *where, strict=True):
                first, end = max(from_, to), min(from_ + n_from, to + n_to)
                source.append(slice(first - from_, max(end - from_, 0)))
                target.append(slice(first - to, max(end - to, 0)))
            if all(each.start < each.stop for each in source):
                result[tuple(target)] = part[tuple(source)]
        return result

    def tolist(self) -> Any:
        """Return its numbers, as torch does not for tensors of a class of their own."""
        return self.read().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Return an array of its numbers, for the same reason."""
        return self.read().numpy(force=force)

    def __deepcopy__(self, memo: object) -> Self:
        """Return it, as it never changes."""
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StoredTensor({tuple(self.shape)}, {self.dtype})"


def _read(value: Any) -> Any:
    if isinstance(value, StoredTensor):
        return value.read()
    return [*map(_read, value)] if isinstance(value, list | tuple) else value


def is_sharded(value: object) -> bool:
    """Return whether a value is a tensor of which each process has a part.

    Args:
        value: any value.

    Example:
        >>> from ttl_core import is_sharded
        >>> any(map(is_sharded, torch.nn.Linear(2, 1).parameters()))
        False
    """
    # where that was not imported there is none, and importing it takes long
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def is_stored(value: object) -> bool:
    """Return whether a value is a tensor whose parts are in files.

    Args:
        value: any value.
    """
    return isinstance(value, StoredTensor)


def own_slice(tensor: torch.Tensor) -> tuple[Slice, bool] | None:
    """Return where the part of this process lies in a distributed tensor.

    Args:
        tensor: the tensor.

    Returns:
        That, and whether this process is the one to save it, of those that have the same part;
        None where processes have the tensor in another way than as slices of it.
    """
    distributed: Any = tensor
    from torch.distributed.tensor import Replicate, Shard

    mesh = distributed.device_mesh
    coordinate = mesh.get_coordinate()
    start, size = [0] * tensor.ndim, [*tensor.shape]
    is_first = coordinate is not None  # else this process has nothing of it
    if coordinate is None:
        return Slice(tuple(start), tuple(0 for _ in size)), False
    for i, placement in enumerate(distributed.placements):
        if type(placement) is Shard:
            dim = placement.dim % tensor.ndim
            longest = -(-size[dim] // mesh.size(i))
            first = min(coordinate[i] * longest, size[dim])
            start[dim] += first
            size[dim] = min(longest, size[dim] - first)
        elif type(placement) is Replicate:
            is_first &= coordinate[i] == 0
        else:  # sums that are not added up, or parts that lie in stripes
            return None
    return Slice(tuple(start), tuple(size)), is_first


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that this process has: all of it, if it is no distributed one.

    Args:
        tensor: the tensor. What is returned shares its memory; it may be empty.

    Example:
        >>> from ttl_core import local_part
        >>> local_part(torch.ones(2))
        tensor([1., 1.])
    """
    if not is_sharded(tensor):
        return tensor
    part: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor; of a distributed one, all processes that share it have to call this.

    Args:
        tensor: the tensor, or one in files. What is returned may share its memory.

    Example:
        >>> from ttl_core import whole_tensor
        >>> whole_tensor(torch.ones(2))
        tensor([1., 1.])
    """
    if isinstance(tensor, StoredTensor):
        return tensor.read()
    if not is_sharded(tensor):
        return tensor
    whole: torch.Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return whole


def distributed_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the device of another one, and distributed over processes as that one.

    A component uses it to load a tensor of its state beside a parameter, as a state that all
    processes have saved together holds whole ones. Of one in files, as a state holds it while it
    is loaded into a distributed model, no more is read than the part of this process.

    Args:
        tensor: the tensor, which is the same in all processes.
        other: another one of the same shape.

    Example:
        >>> from ttl_core import distributed_like
        >>> distributed_like(torch.ones(2), torch.nn.Parameter(torch.zeros(2)))
        tensor([1., 1.])
    """
    if not is_sharded(other):
        return whole_tensor(tensor).to(other.device)
    target: Any = other
    value: Any = tensor
    if not is_sharded(tensor):
        from torch.distributed.tensor import DTensor, Replicate

        mesh = target.device_mesh
        own = own_slice(other)
        if isinstance(tensor, StoredTensor) and tensor.shape == other.shape and own is not None:
            stride = torch.empty(other.shape, device="meta").stride()
            part = tensor.read(own[0]).to(mesh.device_type)
            value = DTensor.from_local(
                part, mesh, target.placements, run_check=False, shape=other.shape, stride=stride
            )
        else:
            here = whole_tensor(tensor).to(mesh.device_type)
            value = DTensor.from_local(here, mesh, [Replicate()] * mesh.ndim, run_check=False)
    # nothing is sent for it where each process has all of the tensor, or its part of it
    placed: torch.Tensor = value.redistribute(target.device_mesh, target.placements)
    return placed.to(target.device)
