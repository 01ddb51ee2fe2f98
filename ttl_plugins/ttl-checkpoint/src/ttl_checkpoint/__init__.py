"""Checkpoints for ttl that survive anything, and resume to the same bits."""

from ttl_checkpoint.checkpoint import Checkpoint, CheckpointPoints
from ttl_checkpoint.sampler import SeededSampler, SeededSamples, sample_generator
from ttl_checkpoint.store import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointPoints",
    "SeededSampler",
    "SeededSamples",
    "sample_generator",
]
