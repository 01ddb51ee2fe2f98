"""A stream of random numbers for each process of a group."""

from __future__ import annotations

import hashlib
import random
import sys

import torch


def fork_random_streams(rank: int) -> None:
    """Continue with random numbers of this process's own; those of the main process stay.

    Args:
        rank: the number of the process.
    """
    if rank == 0:
        return
    digest = hashlib.sha256(f"{torch.initial_seed()} {rank}".encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1
    torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
