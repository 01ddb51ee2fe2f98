"""Runs and epochs under way, whose around-hooks may be entered in the middle of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pluggy

from ttl_core.hooks.wrappers import Wrapper, enter, unwind


class Scope:
    """A run or an epoch under way.

    Args:
        point: "around_run" or "around_epoch".
        loop: the loop.
        components: the components whose wrappers surround it already.
    """

    def __init__(self, point: str, loop: object, components: Iterable[object]) -> None:
        self.point = point
        self._late: list[tuple[Wrapper, pluggy.HookImpl]] = []  # entered since it began
        self._loop = loop
        self._components = list(components)

    def has_entered(self, component: object) -> bool:
        """Return whether the wrapper of a component surrounds this scope."""
        return any(entered is component for entered in self._components)

    def enter(self, component: object, impl: pluggy.HookImpl) -> None:
        """Run the wrapper of a component up to its yield.

        Args:
            component: the component.
            impl: its implementation of the point.

        Raises:
            RuntimeError: it returned before its yield.
        """
        self._components.append(component)
        self._late.append((enter(impl, [self._loop for _ in impl.argnames]), impl))

    def run(self, open_scopes: list[Scope], body: Callable[[], object]) -> None:
        """Call `body` with this scope open, and then leave the late wrappers, the last one first.

        Args:
            open_scopes: the scopes that are open, outermost first.
            body: the run or the epoch.
        """
        exception: BaseException | None = None
        open_scopes.append(self)
        try:
            body()
        except BaseException as raised:
            exception = raised
        finally:
            open_scopes.remove(self)
        unwind(exception, [late[0] for late in self._late], [late[1] for late in self._late])
