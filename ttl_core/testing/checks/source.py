"""Checks of source and packaging: import, names, documentation, configuration."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import pytest

from ttl_core.arguments import kebab_case
from ttl_core.components.component import LoopComponent
from ttl_core.discovery import InstalledComponent, Spec, installed_components, use
from ttl_core.discovery.loading import find, load
from ttl_core.discovery.scanning import installed_distribution
from ttl_core.errors import TTLError
from ttl_core.hookspecs import POINTS
from ttl_core.testing.imports import Imported, import_anew
from ttl_core.testing.names import undefined_names
from ttl_core.testing.under_test import ComponentUnderTest, once, under_test

_REFUSALS = (TypeError, ValueError, TTLError)
_MAX_REPR = 400  # characters
_ANYTHING = re.compile(r"\b(bool|Any|object)\b")  # annotations of what may have any type


class _WrongType:
    """A value of a type that no argument can have."""

    def __repr__(self) -> str:
        return "<a value of a wrong type>"


class _Source(NamedTuple):
    """Where a component comes from.

    Attributes:
        factory: the class, or the function that its entry point names.
        config: the configuration that the test gives it.
        installed: its entry point, if there is one.
    """

    factory: Callable[..., Any]
    config: Mapping[str, Any]
    installed: InstalledComponent | None


class SourceChecks(ComponentUnderTest):
    """Checks of source and packaging."""

    def _source(self) -> _Source:
        item = self.make_components()[-1]
        if isinstance(item, str):
            item = use(item)
        if isinstance(item, Spec):
            named = find(item.plugin)
            return _Source(load(named), item.config, named)
        cls = type(item)
        modules = (cls.__module__, cls.__module__.partition(".")[0])
        values = [f"{module}:{cls.__qualname__}" for module in modules]
        known = (one for several in installed_components().values() for one in several)
        installed = next((one for one in known if one.entry_point.value in values), None)
        config = {name: getattr(item, name) for name in _arguments(cls) if hasattr(item, name)}
        return _Source(cls, config, installed)

    def test_imports_without_side_effects(self) -> None:
        """Importing it does nothing but define: no files, threads, handlers, seeds, settings."""
        lines = self._imported().side_effects
        if lines:
            raise AssertionError("\n  ".join(["importing it has side effects:", *lines]))

    def test_leaves_enough_for_the_next_one(self) -> None:
        """The first component of a process takes nothing out of what its package holds."""
        for line in self._imported().used_up:
            raise AssertionError(f"it uses up what those after it need: {line}")

    @once
    def _imported(self) -> Imported:
        source = self._source()
        module, name = type(under_test(self._loop())).__module__, source.factory.__qualname__
        if source.installed is not None:
            module, name = source.installed.entry_point.module, source.installed.entry_point.attr
        if not hasattr(os, "fork"):
            pytest.skip("this system cannot copy a process")
        if not _is_importable(module):
            pytest.skip(f"{module} is no module that can be imported by its name")
        return import_anew(module, lambda new: attrgetter(name)(new)(**source.config))

    def test_names_agree(self) -> None:
        """Entry point, class, declared name and README agree."""
        source = self._source()
        if source.installed is None:
            pytest.skip("no installed entry point names its class")
        name = source.installed.name
        component = under_test(self._loop())
        if component.name not in (None, name):
            raise AssertionError(
                f"its entry point is called {name!r}, but it declares name={component.name!r}"
            )
        cls = type(component)
        if kebab_case(cls.__name__) != name:
            raise AssertionError(
                f"its entry point is called {name!r}, but its class {cls.__name__}, which as a "
                f"name in a list would be {kebab_case(cls.__name__)!r}"
            )
        distribution = installed_distribution(source.installed.distribution)
        metadata: Any = distribution.metadata if distribution else {}
        readme = str(metadata.get_payload() or metadata.get("Description") or "")
        if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", readme):
            what = "does not mention" if readme.strip() else "is missing, and so does not mention"
            raise AssertionError(
                f"the README of {source.installed.distribution} {what} {name!r}. Name it there, "
                'and set readme = "README.md" in pyproject.toml'
            )

    def test_implements_callback_points(self) -> None:
        """It has a hook, provides points or wraps those of others, and none is misspelled."""
        loop = self._loop()
        member = loop.components.current_members()[-1]
        component = member.component
        if not (member.methods or member.points or member.wraps_others):
            raise AssertionError(
                "it implements no callback point, so that nothing ever calls it. They are: "
                + ", ".join(POINTS)
            )
        own = {n for n in dir(type(component)) if callable(getattr(type(component), n, None))}
        for name in sorted(own - set(dir(LoopComponent)) - set(member.methods)):
            near = difflib.get_close_matches(name.strip("_"), POINTS, n=1, cutoff=0.85)
            if near:
                raise AssertionError(
                    f"its method {name}() is never called: did you mean the point {near[0]}?"
                )

    def test_uses_names_that_exist(self) -> None:
        """Each global name in its methods and module exists, also where no run gets to."""
        for found in undefined_names(under_test(self._loop())):
            raise AssertionError(f"it uses a name that is defined nowhere: {found}")

    def test_documents_its_arguments(self) -> None:
        """Each argument is documented under "Args:" in its docstring."""
        source = self._source()
        doc = inspect.getdoc(source.factory) or ""
        if not doc or doc == inspect.getdoc(LoopComponent):
            raise AssertionError(
                f"{source.factory.__qualname__} has no docstring. Write one, with a line for each "
                "of its arguments under 'Args:'"
            )
        if isinstance(source.factory, type):
            doc += f"\n{inspect.getdoc(vars(source.factory).get('__init__'))}"
        for name in _arguments(source.factory):
            if not re.search(rf"^\s*`?\*{{0,2}}{name}`?( \(.*\))?\s*:", doc, re.MULTILINE):
                raise AssertionError(
                    f"the docstring of {source.factory.__qualname__} does not document its "
                    f"argument {name!r}: it needs a line '{name}: ...' under 'Args:'"
                )

    def test_refuses_unknown_arguments(self) -> None:
        """An argument that it does not have is an error."""
        source = self._source()
        if _missing(source):
            pytest.skip(f"the value of its argument {_missing(source)!r} is not known")
        if not self._refuses(source, "no_such_argument"):
            raise AssertionError(
                "it accepts an argument 'no_such_argument' without a word, and so a misspelled one"
            )

    def test_refuses_arguments_of_wrong_types(self) -> None:
        """A value of a wrong type is refused before work starts, by an error that names it."""
        source = self._source()
        if _missing(source):
            pytest.skip(f"the value of its argument {_missing(source)!r} is not known")
        for name, parameter in _arguments(source.factory).items():
            annotation = str(parameter.annotation)
            is_typed = parameter.annotation is not parameter.empty
            if is_typed and not _ANYTHING.search(annotation) and not self._refuses(source, name):
                raise AssertionError(
                    f"its argument {name!r} ({annotation}) accepts {_WrongType()!r}. Check it in "
                    "__init__, as ttl_core.arguments does"
                )

    def test_has_a_useful_repr(self) -> None:
        """repr() names the class, in one line of a readable length, without an address."""
        component = under_test(self._loop())
        text = repr(component)
        name = type(component).__name__
        reason = next(_faults_of_repr(text, name), None)
        if reason:
            raise AssertionError(f"repr() of it {reason}: {text[:_MAX_REPR]!r}")

    def _refuses(self, source: _Source, name: str) -> bool:
        """Return whether a value of a wrong type is refused, at the latest when a run begins.

        Raises:
            AssertionError: the error does not name the argument.
        """
        try:
            component = source.factory(**{**source.config, name: _WrongType()})
            loop = self._control()
            loop.components.append(component)
            loop.train(n_epochs=0)
        except _REFUSALS as error:
            if name in str(error) or name not in _arguments(source.factory):
                return True
            raise AssertionError(
                f"the error for a wrong value of {name!r} does not name it: "
                f"{type(error).__name__}: {error}"
            ) from error
        except Exception as error:
            raise AssertionError(
                f"a wrong value of {name!r} raises {type(error).__name__}: {error}. Raise a "
                "TypeError, a ValueError or an ArgumentError that says what it has to be"
            ) from error
        return False


def _arguments(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the arguments of a factory by name, without *args; LoopComponent has none."""
    if isinstance(factory, type) and factory.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p for p in parameters if p.kind is not p.VAR_POSITIONAL}


def _missing(source: _Source) -> str | None:
    """Return an argument that is required, and of which no value is known."""
    return next(
        (
            name
            for name, p in _arguments(source.factory).items()
            if p.default is p.empty and p.kind is not p.VAR_KEYWORD and name not in source.config
        ),
        None,
    )


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _faults_of_repr(text: str, name: str) -> Iterator[str]:
    if name not in text:
        yield f"does not name its class {name}"
    if re.search(r"\bat 0x[0-9a-fA-F]+", text):
        yield "tells its address and nothing else"
    if "\n" in text:
        yield "has several lines"
    if len(text) > _MAX_REPR:
        yield f"has {len(text)} characters"
