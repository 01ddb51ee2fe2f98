"""Components with state: what is checked when they join, and what tells two of a class apart."""

from __future__ import annotations

import inspect
from pathlib import PurePath
from typing import Any

from ttl_core.arguments import describe
from ttl_core.errors import ComponentRejectedError

PAIR = ("state_dict", "load_state_dict")
"""The methods of an object that has state."""

_PLAIN = bool | int | float | str | PurePath
_ARGUMENTS = dict(zip(PAIR, ("self", "self, state"), strict=True))


def half_of_pair(value: object) -> tuple[str, str] | None:
    """Return which of the two methods an object has and lacks; None if it has both or neither.

    Args:
        value: the object.
    """
    there = [name for name in PAIR if callable(getattr(value, name, None))]
    if len(there) != 1:
        return None
    (missing,) = {*PAIR} - {*there}
    return there[0], missing


def check_state_methods(component: object, owner: object) -> None:
    """Check that the state of a component, if it has one, can be both saved and loaded.

    Args:
        component: the component.
        owner: the component as errors name it, converted to text only then.

    Raises:
        ComponentRejectedError: one of the two methods is missing, or its version is no number.
    """
    half = half_of_pair(component)
    if half is not None:
        there, missing = half
        raise ComponentRejectedError(
            f"{owner} cannot join: it has {there}() but no {missing}(), so its state would be "
            f"lost when a run resumes. Write both, or give that one another name:\n"
            f"    def {missing}({_ARGUMENTS[missing]}):"
        )
    version = getattr(component, "state_version", 1)
    if type(version) is not int or version < 1:
        raise ComponentRejectedError(
            f"{owner} cannot join: its state_version is {describe(version)}, but has to be a whole "
            "number from 1"
        )


def kept_arguments(component: object) -> dict[str, Any]:
    """Return what a component keeps of its arguments: numbers, texts and paths.

    Such an argument is kept where there is an attribute of its name, which may be private. The
    name in a list is not among them, as it is recorded by itself.

    Args:
        component: the component. Properties are not read, as they may run code.

    Example:
        >>> class Average:
        ...     def __init__(self, decay, model=None):
        ...         self._decay, self.model = decay, model
        >>> kept_arguments(Average(0.9))
        {'decay': 0.9}
    """
    cls = type(component)
    if cls.__init__ is object.__init__ and cls.__new__ is object.__new__:
        return {}  # asked first, as reading that there are none takes as long as all the rest
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # as of some classes that are not written in Python
        return {}
    own = getattr(component, "__dict__", {})
    kept = {name: own.get(name, own.get(f"_{name}")) for name in parameters if name != "name"}
    return {name: value for name, value in kept.items() if isinstance(value, _PLAIN)}
