"""The hooks of a loop as attributes: the loop's own, and those that every caller may use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ttl_core.hookspecs import POINTS


class LoopHooks:
    """The core hooks as attributes: called with positional arguments, they return nothing."""


class HookNamespace:
    """All hooks as attributes: called with keywords, they return the list of results.

    Each is compiled when it is first used. Look it up at each call: a callable that was kept calls
    the components that were in the list when it was looked up.
    """

    def __init__(self, compile_hook: Callable[[str], Callable[..., Any]]) -> None:
        self.__compile_hook = compile_hook

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.__compile_hook(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *POINTS]
