"""Checkpoints for ttl that survive kill -9, full disks and flipped bits.

A run that resumes from one ends in the same bits as one that was not interrupted.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import ttl_core
from ttl_checkpoint.checkpoint import Checkpoint
from ttl_checkpoint.errors import CheckpointError
from ttl_checkpoint.hookspecs import CheckpointPoints
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
