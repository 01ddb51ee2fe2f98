"""Reading the hints that authors declare on components, and matching them with components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ttl_core import discovery
from ttl_core.arguments import is_component_name
from ttl_core.errors import ComponentRejectedError
from ttl_core.hooks.member import Hints, Member


class Key(NamedTuple):
    """The names by which hints refer to a component.

    Attributes:
        name: the name of its entry point; of a component created by hand, its own.
        find_distribution: returns the name and version of its distribution, if it has one.
        former_names: the names that its entry point had in earlier versions.
    """

    name: str
    find_distribution: Callable[[], tuple[str, str] | None] = lambda: None
    former_names: Sequence[str] = ()

    def is_meant_by(self, text: str) -> bool:
        """Return whether a text is a name of the component, or "distribution/name"."""
        distribution, _, name = text.rpartition("/")
        if name != self.name and name not in self.former_names:
            return False
        return not distribution or discovery.is_same_name(
            distribution, (self.find_distribution() or ("", ""))[0]
        )


def key_of(member: Member) -> Key:
    """Return the names by which hints refer to a member."""
    return Key(member.key, member.find_distribution, member.former_names)


def read_hints(named: object, owner: object, *others: object) -> Hints:
    """Return the hints that an author declares.

    Args:
        named: a component, a component class, or a factory of components.
        owner: the component as errors name it.
        *others: where to look for those that `named` does not declare.

    Raises:
        ComponentRejectedError: a hint is neither a name nor several.
    """
    hints: dict[str, tuple[str, ...]] = {}
    for hint in Hints._fields:
        declared_on = (each for each in (named, *others) if hasattr(each, hint))
        value = next((getattr(each, hint) for each in declared_on), ())
        names = (
            tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        )
        for name in names:
            if not isinstance(name, str) or not is_component_name(name.rpartition("/")[2]):
                raise ComponentRejectedError(
                    f"{owner} declares {hint}={value!r}, but {name!r} is not a component's name. "
                    f"Write names of entry points, as in {hint} = ('metrics',)"
                )
        hints[hint] = names
    return Hints(**hints)
