"""The base class of components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

from ttl_core.arguments import describe, kebab_case
from ttl_core.discovery.spec import Spec
from ttl_core.errors import ComponentRejectedError
from ttl_core.group import Group
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
        conflicts: names of components that must not be enabled beside this one.
        only_once: whether no second component of its class or name may be enabled beside it.
        main_only: whether its hooks are called in the main process of a group alone. In the others
            it stays enabled, and its state is neither saved nor loaded.
        state_version: the version of the state that this component returns and loads. Where an
            older one is loaded, it goes through `upgrade_state(state, from_version)`.

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
    after: str | Sequence[str] = ()
    before: str | Sequence[str] = ()
    requires: str | Sequence[str] = ()
    conflicts: str | Sequence[str] = ()
    only_once: bool = False
    main_only: bool = False
    state_version: ClassVar[int] = 1

    def __repr__(self) -> str:
        """Return the class with the arguments that are attributes, and are not the defaults."""
        import inspect  # costs more to import than this module

        parameters = inspect.signature(type(self)).parameters.values()
        given = [
            f"{p.name}={describe(vars(self)[p.name])}"
            for p in parameters
            if p.name in vars(self) and describe(vars(self)[p.name]) != describe(p.default)
        ]
        return f"{type(self).__name__}({', '.join(given)})"

    def join_group(self) -> Group | None:
        """Return the processes that the loop trains with; None where this component knows none.

        Override it to provide `loop.group`, as the component `ddp` does. It is called when a run
        begins, before any hook; of several components that provide one, the first one counts.
        """
        return None

    def wrap_hookimpl(
        self, function: Callable[..., Any], *, component: str, point: str, is_wrapper: bool
    ) -> Callable[..., Any]:
        """Return what the loop calls in place of a hook method of another component.

        Override it to measure or to watch all calls, as the component `component-timer` does. It
        is called when hooks are compiled, once for each hook method of the other components, so
        that it costs nothing where no enabled component overrides it.

        Args:
            function: the method. Call it with the same positional arguments, return what it
                returns, and let its exceptions pass; functools.wraps lets errors name it.
            component: the name of its component in the list.
            point: the callback point.
            is_wrapper: whether it returns a generator, which is run up to its yield, and then to
                its end. What replaces that has its methods `__next__`, `send`, `throw`, `close`.

        Example:
            >>> import functools
            >>> from ttl_core import TrainTestLoop
            >>> from ttl_core.testing import ComponentConformance, Step
            >>> class Count(LoopComponent):
            ...     n_calls = 0
            ...     def wrap_hookimpl(self, function, *, component, point, is_wrapper):
            ...         @functools.wraps(function)
            ...         def call(*arguments):
            ...             self.n_calls += 1
            ...             return function(*arguments)
            ...         return call
            >>> count = Count()
            >>> loop = TrainTestLoop(ComponentConformance.make_model(), [Step(), count],
            ...                      ComponentConformance.make_data(n_batches=1))
            >>> loop.train(n_epochs=1)
            >>> count.n_calls
            7
        """
        return function


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
        shown, cls = describe(item), type(item).__name__
        what = "not a component" if shown == f"a {cls}" else f"a {cls}, not a component"
        raise ComponentRejectedError(
            f"{shown} is {what}. A list takes instances of LoopComponent, names of installed "
            "components, and use(...). The arguments are TrainTestLoop(model, components, "
            "train_data, valid_data)"
        )


def leave_out_hooks(component: LoopComponent, owner: type, names: Iterable[str]) -> None:
    """Let hook methods that a component does not need with its configuration cost nothing.

    Call it in __init__. Methods that a subclass overrides stay.

    Args:
        component: the component.
        owner: its class that has the methods.
        names: the names of the methods.

    Example:
        >>> from ttl_core import LoopComponent, leave_out_hooks
        >>> class Monitor(LoopComponent):
        ...     def __init__(self, per_batch=False):
        ...         if not per_batch:
        ...             leave_out_hooks(self, Monitor, ["on_batch_end"])
        ...     def on_batch_end(self, loop):
        ...         loop.log({"loss": loop.loss})
    """
    for name in names:
        if getattr(type(component), name) is getattr(owner, name):
            point = getattr(LoopComponent, name, None)  # None: its point has another name
            setattr(component, name, point and point.__get__(component))


def own_name(component: LoopComponent, default: str | None = None) -> str:
    """Return the name that a component declares, else a default, else its class's."""
    if isinstance(component.name, str):
        return kebab_case(component.name)
    return default or kebab_case(type(component).__name__)
