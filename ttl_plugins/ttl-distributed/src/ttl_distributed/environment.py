"""What torchrun tells a process about its group."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ttl_core import RunError

_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_NAMES = (*_NUMBERS, "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """The place of this process in its group.

    Attributes:
        rank: its number.
        size: the number of processes.
        local_rank: its number on this machine.
    """

    rank: int
    size: int
    local_rank: int


def place_in(variables: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place of this process as torchrun tells it; None where it was started alone.

    Args:
        variables: the environment.

    Raises:
        RunError: only a part of what torchrun sets is there, or something else than numbers.

    Example:
        >>> place_in({"HOME": "/root"})
        >>> place_in({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1",
        ...           "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
        Place(rank=1, size=2, local_rank=1)
    """
    if not any(name in variables for name in ("RANK", "WORLD_SIZE")):
        return None
    missing = [name for name in _NAMES if not variables.get(name)]
    if missing:
        there = ", ".join(f"{n}={variables[n]}" for n in _NAMES if variables.get(n))
        raise RunError(
            f"ttl-distributed: the environment has {there}, but not {', '.join(missing)}, so it is "
            "not known which processes train together. Start the script by torchrun, which sets "
            "all of them, or unset these to train in one process"
        )
    numbers = {name: variables[name] for name in _NUMBERS}
    if not all(value.isascii() and value.isdigit() for value in numbers.values()):
        raise RunError(
            f"ttl-distributed: {', '.join(f'{n}={v!r}' for n, v in numbers.items())} have to be "
            "whole numbers. Start the script by torchrun, which sets them"
        )
    place = Place(*(int(value) for value in numbers.values()))
    if not place.rank < place.size or not place.local_rank <= place.rank:
        raise RunError(
            f"ttl-distributed: RANK={place.rank} and LOCAL_RANK={place.local_rank} do not fit "
            f"WORLD_SIZE={place.size}: ranks count from 0. Start the script by torchrun"
        )
    return place
