"""What the environment disables: `TTL_DISABLE=a,b`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection

from ttl_core import discovery
from ttl_core.arguments import did_you_mean, user_stacklevel

_reported: set[str] = set()
"""The unknown names that were reported already."""


def disabled_names() -> set[str]:
    """Return the names that TTL_DISABLE lists."""
    return {name.strip() for name in variable().split(",")} - {""}


def variable() -> str:
    """Return the value of TTL_DISABLE."""
    return os.environ.get("TTL_DISABLE", "")


def warn_of_unknown_names(present: Collection[str]) -> None:
    """Warn once of each name that is neither installed nor in a list.

    Args:
        present: the names in the list.
    """
    for name in sorted(disabled_names() - set(present) - _reported):
        if name not in discovery.installed_components():
            _reported.add(name)
            hint = did_you_mean(name, [*present, *discovery.installed_components()])
            warnings.warn(
                f"TTL_DISABLE names {name!r}, which is neither installed nor in the loop. {hint}",
                UserWarning,
                stacklevel=user_stacklevel(),
            )
