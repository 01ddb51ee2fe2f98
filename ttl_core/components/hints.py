"""Reading the hints that authors declare on components."""

from __future__ import annotations

from collections.abc import Iterable

from ttl_core.arguments import is_component_name
from ttl_core.errors import ComponentRejectedError
from ttl_core.hooks.member import Hints


def read_hints(named: object, owner: object) -> Hints:
    """Return the hints that an entry point's class or factory declares.

    Args:
        named: a component class, or a factory of components.
        owner: the component as errors name it.

    Raises:
        ComponentRejectedError: a hint is neither a name nor several.
    """
    hints: dict[str, tuple[str, ...]] = {}
    for hint in ("after", "before", "requires"):
        value = getattr(named, hint, ())
        names = (
            tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        )
        for name in names:
            if not isinstance(name, str) or not is_component_name(name):
                raise ComponentRejectedError(
                    f"{owner} declares {hint}={value!r}, but {name!r} is not a component's name. "
                    f"Write names of entry points, as in {hint} = ('metrics',)"
                )
        hints[hint] = names
    return Hints(**hints)
