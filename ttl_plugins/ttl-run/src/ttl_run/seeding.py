"""Seeding all sources of random numbers."""

from __future__ import annotations

import random
from importlib import import_module

import torch

from ttl_core import ArgumentError
from ttl_core.arguments import whole_number
from ttl_run.determinism import Determinism

N_SEEDS = 2**32  # NumPy takes no larger ones


def checked_seed(seed: int) -> int:
    """Return a seed, if every source of random numbers takes it.

    Raises:
        ArgumentError: one does not.
    """
    seed = whole_number("seed", seed)
    if seed >= N_SEEDS:
        raise ArgumentError(f"seed is {seed}, but has to be below 2**32, as NumPy takes no other")
    return seed


def seed_random_numbers(seed: int) -> None:
    """Seed Python, NumPy if it is installed, and torch on all devices.

    The workers of a DataLoader follow: torch seeds all three in each of them, from a number that
    the process of the loader draws.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        numpy = import_module("numpy")
    except ImportError:
        return
    numpy.random.seed(seed)


def seed_all(seed: int, deterministic: bool = False) -> None:
    """Seed all sources of random numbers, for example before a model is created.

    Args:
        seed: the seed, from 0 to 2**32 - 1.
        deterministic: whether to make torch deterministic too, until the process ends.

    Raises:
        ArgumentError: it is no such number.

    Example:
        >>> seed_all(3)
        >>> first = torch.rand(1)
        >>> seed_all(3)
        >>> torch.equal(first, torch.rand(1))
        True
    """
    seed_random_numbers(checked_seed(seed))
    if deterministic:
        Determinism().enable()
