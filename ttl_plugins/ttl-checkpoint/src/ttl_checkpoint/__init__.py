"""Checkpoints for ttl that survive anything, and resume to the same bits."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import ttl_core
from ttl_checkpoint.checkpoint import Checkpoint, CheckpointPoints
from ttl_checkpoint.store import CheckpointError
from ttl_core.arguments import user_stacklevel

if TYPE_CHECKING:
    from ttl_core import SeededSampler, SeededSamples, sample_generator

_MOVED = ("SeededSampler", "SeededSamples", "sample_generator")

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointPoints",
    "SeededSampler",
    "SeededSamples",
    "sample_generator",
]


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"{name} has moved to the core: write `from ttl_core import {name}`; importing it from "
        "ttl_checkpoint works in this version only",
        FutureWarning,
        stacklevel=user_stacklevel(),
    )
    return getattr(ttl_core, name)
