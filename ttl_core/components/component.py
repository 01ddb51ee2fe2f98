"""The base class of components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from ttl_core.arguments import kebab_case
from ttl_core.discovery.spec import Spec
from ttl_core.errors import ComponentRejectedError
from ttl_core.hookspecs import CallbackPoints


class LoopComponent(CallbackPoints):
    """The base class of components.

    Override the callback points that you need; the others cost nothing. A method with the name of
    a point needs no decorator; `@hookimpl(...)` is there for options.

    Attributes:
        name: the name in a list; None means the entry point's name, or the class's.
        hookspecs: a module or class of functions marked with `@hookspec`: callback points that
            this component provides. Their names begin with the component's.
        after: names of components that this one is placed after, where they are present.
        before: names of components that this one is placed before, where they are present.
        requires: names of components that have to be present and enabled.

    Example:
        >>> class CountBatches(LoopComponent):
        ...     def on_epoch_begin(self, loop):
        ...         self.count = 0
        ...
        ...     def on_batch_end(self, loop):
        ...         self.count += 1
    """

    name: str | None = None
    hookspecs: ClassVar[Any] = None
    after: ClassVar[str | Sequence[str]] = ()
    before: ClassVar[str | Sequence[str]] = ()
    requires: ClassVar[str | Sequence[str]] = ()


Item: TypeAlias = LoopComponent | str | Spec
"""What may enter a list: a component, the name of an installed one, or a spec of one."""


def check_is_component(item: object) -> None:
    """Check that an item is a component.

    Raises:
        ComponentRejectedError: it is not.
    """
    if isinstance(item, type) and issubclass(item, LoopComponent):
        raise ComponentRejectedError(
            f"{item.__qualname__} is a class, not a component. Write {item.__name__}(...), which "
            "makes one"
        )
    if not issubclass(type(item), LoopComponent):  # a proxy answers isinstance, and has no hooks
        raise ComponentRejectedError(
            f"{item!r} is a {type(item).__name__}, not a component. A list takes instances of "
            "LoopComponent, names of installed components, and use(...)"
        )


def own_name(component: LoopComponent, default: str | None = None) -> str:
    """Return the name that a component declares, else a default, else its class's."""
    if isinstance(component.name, str):
        return kebab_case(component.name)
    return default or kebab_case(type(component).__name__)
