"""Names of components in a list."""

from __future__ import annotations

from collections.abc import Collection


def free_name(name: str, taken: Collection[str]) -> str:
    """Return `name`, or `name#2`, `name#3` ... where it is taken.

    >>> free_name("metrics", {"metrics", "metrics#2"})
    'metrics#3'
    """
    number = 2
    free = name
    while free in taken:
        free = f"{name}#{number}"
        number += 1
    return free
