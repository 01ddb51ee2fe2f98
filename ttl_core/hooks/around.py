"""Runs and epochs under way, whose around-hooks may be entered in the middle of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, NoReturn, cast

import pluggy

Wrapper = Generator[None, Any, Any]


class Scope:
    """A run or an epoch under way.

    Args:
        point: "around_run" or "around_epoch".
        loop: the loop.
        components: the components whose wrappers surround it already.

    Attributes:
        late_wrappers: the wrappers that were entered since it began, in that order.
    """

    def __init__(self, point: str, loop: object, components: Iterable[object]) -> None:
        self.point = point
        self.late_wrappers: list[Wrapper] = []
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
        wrapper = cast(Wrapper, impl.function(*(self._loop for _ in impl.argnames)))
        try:
            next(wrapper)
        except StopIteration:
            _raise_wrapfail(wrapper, "did not yield")
        self.late_wrappers.append(wrapper)

    def run(self, open_scopes: list[Scope], body: Callable[[], object]) -> None:
        """Call `body` with this scope open, and then leave the late wrappers, the last one first.

        As with pluggy's own wrappers, each is given the exception that passes, may replace it,
        and swallows it by returning.

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
        for wrapper in reversed(self.late_wrappers):
            exception = _leave(wrapper, exception)
        if exception is not None:
            raise exception


def _leave(wrapper: Wrapper, exception: BaseException | None) -> BaseException | None:
    """Run a wrapper to its end; return the exception that passes after it."""
    try:
        if exception is None:
            wrapper.send(None)
        else:
            wrapper.throw(exception)
        wrapper.close()
        _raise_wrapfail(wrapper, "has second yield")
    except StopIteration:
        return None
    except BaseException as raised:
        # a StopIteration that a generator lets pass comes out as the cause of a RuntimeError
        is_wrapped = isinstance(exception, StopIteration) and raised.__cause__ is exception
        return exception if is_wrapped else raised


def _raise_wrapfail(wrap_controller: Wrapper, problem: str) -> NoReturn:
    # the names are pluggy's, by which a failure is attributed to the wrapper
    code = wrap_controller.gi_code  # type: ignore[attr-defined]
    where = f"{code.co_filename}:{code.co_firstlineno}"
    raise RuntimeError(f"wrap_controller at {code.co_name!r} {where} {problem}")
