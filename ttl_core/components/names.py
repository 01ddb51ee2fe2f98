"""Names of components: kebab-case, and numbers where a name is taken."""

from __future__ import annotations

import re
from collections.abc import Collection

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def kebab_case(text: str) -> str:
    """Turn an identifier or a title into a name, or into "component" where nothing is left.

    >>> kebab_case("MainLoop"), kebab_case("EMA"), kebab_case("_My Adam2"), kebab_case("42")
    ('main-loop', 'ema', 'my-adam2', 'component')
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", _HUMP.sub("-", text)).lower()
    return re.sub(r"^[^a-z]+", "", words).strip("-") or "component"


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
