"""What the environment disables: `TTL_DISABLE=a,b`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection

from ttl_core import discovery
from ttl_core.arguments import did_you_mean, user_stacklevel
from ttl_core.components.hints import key_of
from ttl_core.hooks.member import Member

_reported: set[str] = set()
"""The unknown names that were reported already."""


def disabled_names() -> set[str]:
    """Return the names that TTL_DISABLE lists."""
    return {name.strip() for name in variable().split(",")} - {""}


def is_listed(member: Member, names: Collection[str]) -> bool:
    """Return whether some names are, or hold, one of a member's.

    Args:
        member: the member.
        names: names in the list, of entry points, or "distribution/name".
    """
    return any(name == member.name or key_of(member).is_meant_by(name) for name in names)


def variable() -> str:
    """Return the value of TTL_DISABLE."""
    return os.environ.get("TTL_DISABLE", "")


def warn_of_unknown_names(present: Collection[Member]) -> None:
    """Warn once of each name that is neither installed nor in a list.

    Args:
        present: the members of the list.
    """
    for name in sorted(disabled_names() - _reported):
        if not any(is_listed(m, [name]) for m in present) and not discovery.find_all(name):
            _reported.add(name)
            known = [*(m.name for m in present), *(m.key for m in present)]
            hint = did_you_mean(name, [*known, *discovery.installed_components()])
            warnings.warn(
                f"TTL_DISABLE names {name!r}, which is neither installed nor in the loop. {hint}",
                UserWarning,
                stacklevel=user_stacklevel(),
            )
