"""Regions of a model, chosen by name or class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch

from ttl_core import ArgumentError
from ttl_core.arguments import describe

Pattern = str | type[torch.nn.Module]


def checked_patterns(regions: Pattern | Iterable[Pattern]) -> list[Pattern]:
    """Return patterns as a list.

    Args:
        regions: a pattern, or several.

    Raises:
        ArgumentError: one is neither text nor a module class, or there is none.
    """
    is_one = isinstance(regions, str | type) or not isinstance(regions, Iterable)
    patterns = [regions] if is_one else list(regions)  # type: ignore[arg-type]
    for pattern in patterns:
        is_class = isinstance(pattern, type) and issubclass(pattern, torch.nn.Module)
        if not is_class and not isinstance(pattern, str):
            raise ArgumentError(
                f"regions holds {describe(pattern)}, but a region is the name of modules, as "
                "'blocks.*', the name of their class, as 'TransformerEncoderLayer', or the class"
            )
    if not patterns:
        raise ArgumentError("regions is empty. Leave it out to compile the model as a whole")
    return patterns  # type: ignore[return-value]


def matching_modules(model: torch.nn.Module, patterns: Iterable[Pattern]) -> list[torch.nn.Module]:
    """Return the modules that match patterns, without those inside of others.

    Args:
        model: the model.
        patterns: patterns of names, names of classes, and classes.

    Raises:
        ArgumentError: a pattern matches no module.
    """
    modules = dict(model.named_modules())
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name, module in modules.items() if _matches(pattern, name, module)}
        if not matching:
            names = [
                *filter(None, modules),
                *{type(module).__name__ for module in modules.values()},
            ]
            nearest = difflib.get_close_matches(_name(pattern), names, n=3, cutoff=0)
            raise ArgumentError(
                f"'compile' has the region {_name(pattern)!r}, which matches neither the name nor "
                f"the class of a module in the model. The nearest are: {', '.join(nearest)}"
            )
        found |= matching
    return [
        module
        for name, module in modules.items()
        if name in found and not any(_is_inside(name, other) for other in found)
    ]


def _matches(pattern: Pattern, name: str, module: torch.nn.Module) -> bool:
    if isinstance(pattern, type):
        return isinstance(module, pattern)
    return type(module).__name__ == pattern or (bool(name) and fnmatchcase(name, pattern))


def _is_inside(name: str, other: str) -> bool:
    return name != other and name.startswith(f"{other}." if other else "")


def _name(pattern: Pattern) -> str:
    return pattern.__name__ if isinstance(pattern, type) else pattern
