"""A component `acme` that provides callback points, and others that implement them."""

from __future__ import annotations

from typing import Any

from loops import make_component

from ttl_core import LoopComponent, TrainTestLoop, hookimpl, hookspec


class Points:
    """The callback points of `acme`."""

    @hookspec
    def acme_report(self, loop, x):
        """Report something."""

    @hookspec(firstresult=True)
    def acme_choose(self, loop, x=0):
        """Choose something."""

    @hookspec
    def acme_scale(self, loop, x, factor=10):
        """Scale something."""


class Acme(LoopComponent):
    """A component that provides callback points."""

    hookspecs = Points


def make_provider(hookspecs: Any = Points, name: str = "acme", **body: Any) -> LoopComponent:
    """Return a component of its own class that provides callback points."""
    return type("Provider", (LoopComponent,), {"hookspecs": hookspecs, "name": name, **body})()


def providing(point: str, name: str = "acme", **options: Any) -> LoopComponent:
    """Return a component that provides one callback point, with options of hookspec."""
    spec = hookspec(**options)(lambda loop, x: None)
    return make_provider(type("Provided", (), {point: staticmethod(spec)}), name)


def make_implementation(name: str | None = None, **functions: Any) -> LoopComponent:
    """Return a component whose hooks are marked: `make_implementation(acme_report=function)`."""
    marked = {point: hookimpl(function) for point, function in functions.items()}
    return make_component(name=name, **marked)


def reporting(name: str) -> LoopComponent:
    """Return a component that returns its name and `x` in acme_report."""
    return make_implementation(name, acme_report=lambda x: f"{name}{x}")


def returning(value: Any) -> LoopComponent:
    """Return a component that returns one value in acme_report and acme_choose."""
    return make_implementation(acme_report=lambda: value, acme_choose=lambda: value)


def report(loop: TrainTestLoop, x: int = 1) -> str:
    """Return what the implementations of acme_report return, as words."""
    return " ".join(loop.hook.acme_report(loop=loop, x=x))
