"""Paths that users give: absolute from the start, with `~` as the home directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ttl_core import ArgumentError


def absolute_path(name: str, value: Any) -> Path:
    """Return the absolute path of an argument; no later chdir() changes what it means.

    Args:
        name: the name of the argument.
        value: its value.

    Raises:
        ArgumentError: it is no path.

    Example:
        >>> absolute_path("directory", "~/runs") == Path.home() / "runs"
        True
    """
    is_path = isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)
    if not is_path or not os.fspath(value) or "\0" in os.fspath(value):
        raise ArgumentError(f"{name} is {value!r}, but has to be a path, as 'runs/a'")
    try:
        return Path(value).expanduser().absolute()  # ".." stays: a link may be before it
    except RuntimeError as error:
        raise ArgumentError(f"{name} is {value!r}: {error}") from None
