"""Checks of arguments, shared by the loop and its components so that all refuse alike."""

from __future__ import annotations

import math
import operator
import os
import re
import reprlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ttl_core.errors import ArgumentError

__all__ = [
    "absolute_path",
    "describe",
    "did_you_mean",
    "directory_or_run_folder",
    "flag",
    "is_component_name",
    "kebab_case",
    "mapping",
    "number",
    "one_of",
    "text",
    "user_stacklevel",
    "warn_of_renamed_keyword",
    "whole_number",
]

_Choice = TypeVar("_Choice")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_COMPONENT_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def whole_number(name: str, value: Any, *, at_least: int = 0) -> int:
    """Return a whole number, of Python or of NumPy, as an int.

    Args:
        name: the argument's name, for the error.
        value: what was given for it.
        at_least: the smallest number that is accepted.

    Raises:
        ArgumentError: it is no whole number, a bool, or too small.

    Example:
        >>> whole_number("every", 3, at_least=1)
        3
    """
    try:
        # those of NumPy and torch are accepted as an index, too
        is_bool = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
        result = None if is_bool else operator.index(value)
    except TypeError:
        result = None
    if result is None or result < at_least:
        raise ArgumentError(
            f"{name} is {describe(value)}, but has to be a whole number from {at_least}"
        )
    return result


def number(
    name: str, value: Any, *, above: float = -math.inf, at_least: float = -math.inf
) -> float:
    """Return a number as it is, if it lies in a range.

    Args:
        name: the argument's name, for the error.
        value: what was given for it.
        above: what it has to be greater than.
        at_least: what it has to be no less than.

    Raises:
        ArgumentError: it is no number, a bool, NaN, or outside the range.

    Example:
        >>> number("max_norm", 0.5, above=0)
        0.5
    """
    try:
        is_valid = not isinstance(value, bool | str) and above < value and at_least <= value
    except TypeError:
        is_valid = False
    if not is_valid:
        limits = [f"above {above:g}"] if above > -math.inf else []
        limits += [f"at least {at_least:g}"] if at_least > -math.inf else []
        wanted = " ".join(["a number", *limits])
        raise ArgumentError(f"{name} is {describe(value)}, but has to be {wanted}")
    return value  # type: ignore[no-any-return]


def flag(name: str, value: Any) -> bool:
    """Return a value that is True or False.

    Args:
        name: the argument's name, for the error.
        value: what was given for it.

    Raises:
        ArgumentError: it is something else, such as a text, which would count as True.

    Example:
        >>> flag("resume", False)
        False
    """
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} is {describe(value)}, but has to be True or False")
    return value


def one_of(name: str, value: Any, choices: Iterable[_Choice]) -> _Choice:
    """Return a value that is one of several choices.

    Args:
        name: the argument's name, for the error.
        value: what was given for it.
        choices: what is accepted.

    Raises:
        ArgumentError: it is none of them.

    Example:
        >>> one_of("mode", "min", ["min", "max"])
        'min'
    """
    choices = list(choices)
    for choice in choices:
        if isinstance(value, type(choice)) and value == choice:
            return choice
    hint = did_you_mean(value, map(str, choices)) if isinstance(value, str) else ""
    accepted = " or ".join(map(repr, choices))
    message = f"{name} is {describe(value)}, but has to be {accepted}"
    raise ArgumentError(f"{message}. {hint}".rstrip() if hint else message)


def text(name: str, value: Any) -> str:
    """Return a text as it is, if it is one that is not blank.

    Args:
        name: the argument's name, for the error.
        value: what was given for it.

    Raises:
        ArgumentError: it is something else.

    Example:
        >>> text("project", "digits")
        'digits'
    """
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"{name} is {describe(value)}, but has to be text that is not blank")
    return value


def mapping(name: str, value: Any) -> dict[str, Any]:
    """Return a copy of a mapping with text as its keys; an empty one for None.

    Args:
        name: the argument's name, for the error.
        value: what was given for it.

    Raises:
        ArgumentError: it is something else.

    Example:
        >>> mapping("tags", {"data": "digits"}), mapping("tags", None)
        ({'data': 'digits'}, {})
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ArgumentError(f"{name} is {describe(value)}, but has to be a mapping by text")
    return dict(value)


def absolute_path(name: str, value: Any) -> Path:
    """Return the absolute path of an argument; no later chdir() changes what it means.

    Args:
        name: the name of the argument.
        value: its value, in which `~` is the home directory.

    Raises:
        ArgumentError: it is no path.

    Example:
        >>> absolute_path("directory", "~/runs") == Path.home() / "runs"
        True
    """
    is_path = isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)
    if not is_path or not os.fspath(value) or "\0" in os.fspath(value):
        raise ArgumentError(f"{name} is {value!r}, but has to be a path, as 'runs/a'")
    try:
        return Path(value).expanduser().absolute()  # ".." stays: a link may be before it
    except RuntimeError as error:
        raise ArgumentError(f"{name} is {value!r}: {error}") from None


def directory_or_run_folder(
    directory: Path | None, loop: Any, component: str, *, subfolder: str = ""
) -> Path:
    """Return the directory of a component: its own, or else one in the folder of the run.

    Args:
        directory: the directory that was given, if one was.
        loop: the loop, whose variable `run_folder` the component `run-folder` sets.
        component: the name of the component, for the error.
        subfolder: the name of a folder in that of the run; by default it is that one itself.

    Raises:
        ArgumentError: no directory was given, and there is no folder of the run.
    """
    if directory is not None:
        return directory
    folder: Path | None = vars(loop).get("run_folder")
    if folder is None:
        raise ArgumentError(
            f"{component} has no directory: write use({component!r}, directory=...), or put "
            "'run-folder' before it in the list"
        )
    return folder / subfolder


def describe(value: Any) -> str:
    """Return a value as errors show it: its repr, or its type where that is long.

    Args:
        value: the value.

    Example:
        >>> describe(3), describe(list(range(1000))), describe("a" * 1000)
        ('3', '[0, 1, 2, 3, 4, 5, ...]', 'a str')
    """
    text = repr(value) if isinstance(value, str) else reprlib.repr(value)
    is_short = len(text) <= 100 and "\n" not in text
    return text if is_short else f"a {type(value).__name__}"


def did_you_mean(wrong: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return a question that suggests the nearest of some names, or "" if none is near.

    Args:
        wrong: what was given.
        names: what there is.
        cutoff: how near a name has to be, from 0 to 1 for the same name.

    Example:
        >>> did_you_mean("metrisc", ["metrics", "progress"])
        "Did you mean 'metrics'? "
    """
    import difflib  # costs more to import than all of ttl_core, and only errors need it

    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wrong.lower(), by_lower, n=1, cutoff=cutoff)
    return f"Did you mean {by_lower[near[0]]!r}? " if near else ""


def user_stacklevel() -> int:
    """Return the `stacklevel` for a warning in the caller that shows the user's own line.

    That is the nearest frame outside of ttl_core, pluggy and the package of the caller.

    Example:
        >>> import warnings
        >>> def check():
        ...     warnings.warn("not what you meant", UserWarning, stacklevel=user_stacklevel())
    """
    level, frame = 1, sys._getframe(1)
    packages = {"ttl_core", "pluggy", _package(frame.f_globals)}
    while frame.f_back and _package(frame.f_globals) in packages:
        level, frame = level + 1, frame.f_back
    return level


def _package(namespace: dict[str, Any]) -> str:
    return str(namespace.get("__name__", "")).partition(".")[0]


def warn_of_renamed_keyword(old: str, new: str) -> None:
    """Warn the user's line that a keyword argument has a new name.

    Args:
        old: the name that was used.
        new: the name to use.
    """
    warnings.warn(
        f"the argument {old}= is now called {new}=; the old name works in this version only",
        FutureWarning,
        stacklevel=user_stacklevel(),
    )


def is_component_name(text: str) -> bool:
    """Return whether a text is a component's name by the grammar.

    Example:
        >>> is_component_name("grad-clip"), is_component_name("Grad_Clip")
        (True, False)
    """
    return _COMPONENT_NAME.fullmatch(text) is not None


def kebab_case(text: str) -> str:
    """Return an identifier or a title as a component's name; "component" where nothing is left.

    Example:
        >>> kebab_case("MainLoop"), kebab_case("EMA"), kebab_case("_My Adam2"), kebab_case("42")
        ('main-loop', 'ema', 'my-adam2', 'component')
    """
    words = re.sub(r"[^A-Za-z0-9]+", "-", _HUMP.sub("-", text)).lower()
    return re.sub(r"^[^a-z]+", "", words).strip("-") or "component"
