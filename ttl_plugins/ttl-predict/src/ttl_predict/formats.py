"""The formats of files of predictions: columns of tensors as the bytes of a file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch

Columns = Mapping[str, torch.Tensor]
"""Tensors on the CPU by name, with a row for each sample."""


def _parquet(columns: Columns) -> bytes:
    import pyarrow
    import pyarrow.parquet

    arrays = {name: _arrow_array(pyarrow, tensor) for name, tensor in columns.items()}
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays), stream)
    return stream.getvalue()


def _arrow_array(pyarrow: Any, tensor: torch.Tensor) -> Any:
    """Return a column: of numbers, or of lists of a fixed size, nested by dimension."""
    array = pyarrow.array(_numpy(tensor).reshape(-1))
    for size in reversed(tensor.shape[1:]):
        array = pyarrow.FixedSizeListArray.from_arrays(array, size)
    return array


def _npz(columns: Columns) -> bytes:
    from numpy.lib.format import write_array

    stream = io.BytesIO()
    # as numpy.savez does, of which "file" and others are no names, as they are its own arguments
    with zipfile.ZipFile(stream, "w") as archive:
        for name, tensor in columns.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                write_array(file, _numpy(tensor), allow_pickle=False)
    return stream.getvalue()


def _safetensors(columns: Columns) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in columns.items()})


def _numpy(tensor: torch.Tensor) -> Any:
    # NumPy has no bfloat16
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


FORMATS: dict[str, Callable[[Columns], bytes]] = {
    "parquet": _parquet,
    "npz": _npz,
    "safetensors": _safetensors,
}
"""Functions that return the bytes of a file, by format, which is the suffix of the file too."""
