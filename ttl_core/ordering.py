"""Pure functions on names: the grammar, suggestions, and names that are free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def is_name(text: str) -> bool:
    """Tell whether `text` is a component's name by the grammar.

    >>> is_name("grad-clip"), is_name("Grad_Clip")
    (True, False)
    """
    return _NAME.fullmatch(text) is not None


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


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """Return a question that offers the nearest of `names`, or nothing.

    >>> did_you_mean("metrisc", ["metrics", "progress"])
    "Did you mean 'metrics'? "
    """
    import difflib  # costs more to import than all of ttl_core, and only errors need it

    near = difflib.get_close_matches(wrong.lower(), list(names), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}? " if near else ""
