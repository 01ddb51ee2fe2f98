"""The exception types, one root for all. Each also inherits the built-in that fits."""

from __future__ import annotations

from collections.abc import Callable

__all__ = [
    "ArgumentError",
    "ComponentRejectedError",
    "ConfigurationError",
    "ConflictError",
    "DuplicateComponentError",
    "GroupError",
    "OrderCycleError",
    "OrderWarning",
    "PluginError",
    "RequirementError",
    "RunError",
    "StateError",
    "TTLError",
    "UnknownNameError",
    "UnknownPointError",
    "UnsetVariableError",
]


class TTLError(Exception):
    """The root of the errors of ttl."""


class UnknownNameError(TTLError, LookupError, ValueError):
    """A name is not installed, or not in the list.

    It is a LookupError for `components["name"]` and a ValueError for
    `components.index("name")` and `components.remove("name")`, as a list raises them.
    """


class ComponentRejectedError(TTLError, TypeError):
    """An object cannot join a list of components."""


class DuplicateComponentError(TTLError, ValueError):
    """One component object is in a list twice."""


class RequirementError(TTLError, ValueError):
    """A component requires another one that is absent or disabled."""


class ConflictError(TTLError, ValueError):
    """A component is enabled beside another one that it cannot work with."""


class OrderCycleError(TTLError, ValueError):
    """Declared hints contradict one another."""


class UnknownPointError(TTLError, AttributeError):
    """No component in the list provides a callback point."""


class ConfigurationError(TTLError, TypeError):
    """A component does not accept its configuration, or train() an argument."""


class PluginError(TTLError, ImportError):
    """An installed component cannot be loaded.

    Attributes:
        reason: why, as a part of the message; "" if the message says nothing else.
    """

    reason: str = ""


class ArgumentError(TTLError, ValueError):
    """An argument has an unusable value."""


class RunError(TTLError, RuntimeError):
    """A run cannot begin or continue, or a method was called at a time when it cannot be."""


class GroupError(TTLError, RuntimeError):
    """Another process of the group has failed or ended, or the processes disagree."""


class StateError(TTLError, ValueError):
    """A state cannot be saved, or does not fit the loop that is to resume from it."""


class UnsetVariableError(TTLError, AttributeError):
    """A loop variable is read that no component has set.

    Args:
        text: the message, or what returns it. It is called when the message is read, which
            `getattr(loop, name, None)` never does.
    """

    def __init__(self, text: str | Callable[[], str]) -> None:
        super().__init__()
        self._text = text

    def __str__(self) -> str:
        if callable(self._text):
            self._text = self._text()
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (str(self),)


class OrderWarning(UserWarning):
    """A list contradicts a hint that the author of a component declared."""
