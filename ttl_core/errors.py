"""The exception types, one root for all. Each also inherits the built-in that fits."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "ComponentRejectedError",
    "ConfigurationError",
    "DuplicateComponentError",
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
    """Be the root of every error that ttl raises on purpose."""


class UnknownNameError(TTLError, LookupError, ValueError):
    """Say that a name is not installed, or not in the list.

    It is a LookupError for `components["name"]` and a ValueError for
    `components.index("name")` and `components.remove("name")`, as a list raises them.
    """


class ComponentRejectedError(TTLError, TypeError):
    """Say why an object cannot join a list of components."""


class DuplicateComponentError(TTLError, ValueError):
    """Say that one component object stands twice in a list."""


class RequirementError(TTLError, ValueError):
    """Say which component needs which other one that is absent or disabled."""


class OrderCycleError(TTLError, ValueError):
    """Say which hints contradict one another, and who declared them."""


class UnknownPointError(TTLError, AttributeError):
    """Say who brings a callback point that nobody in the list brings."""


class ConfigurationError(TTLError, TypeError):
    """Say which configuration a component was given and which it accepts."""


class PluginError(TTLError, ImportError):
    """Say which installed component cannot be loaded, from which distribution, and why."""


class ArgumentError(TTLError, ValueError):
    """Say which argument of the loop has which unusable value."""


class RunError(TTLError, RuntimeError):
    """Say that something was asked for at a time when it cannot be done."""


class StateError(TTLError, ValueError):
    """Say what in a state cannot be saved, or does not fit the loop that shall go on from it."""


class UnsetVariableError(TTLError, AttributeError):
    """Say which loop variable nobody has set, and who should have."""


class OrderWarning(UserWarning):
    """Warn that a list contradicts what the author of a component declared."""
