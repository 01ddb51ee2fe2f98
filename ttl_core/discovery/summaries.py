"""What entry points name, in the words of their docstrings, which are read without an import."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from ttl_core.discovery.scanning import InstalledComponent

_MAX_HOPS = 3  # from a package to the module that it takes a name from


def summary_of(installed: InstalledComponent) -> str:
    """Return the first line of the docstring of a component, or the summary of its distribution.

    Args:
        installed: an entry point of a component, or of another kind.
    """
    module, _, name = installed.entry_point.value.partition(":")
    for _ in range(_MAX_HOPS if name else 0):
        source = _source(module.strip())
        documented = re.search(
            rf'^(?:class|def) {re.escape(name)}\b(?:[^"]*?):\n\s+"""(.+?)(?:"""|\n)',
            source,
            re.MULTILINE,
        )
        if documented is not None:
            return documented[1].strip()
        taken = re.search(
            rf"^from ([\w.]+) import (?:\([^)]*?\b{re.escape(name)}\b|.*\b{re.escape(name)}\b)",
            source,
            re.MULTILINE,
        )
        if taken is None:
            break
        module = taken[1]
    return installed.summary


@cache
def _source(module: str) -> str:
    """Return the source of a module; "" if it cannot be found without importing others."""
    top, *rest = module.split(".")
    with contextlib.suppress(Exception):  # whatever finders raise: this is a courtesy
        spec = importlib.util.find_spec(top)
        for i in range(len(rest)):
            assert spec is not None
            full_name = ".".join([top, *rest[: i + 1]])
            spec = PathFinder.find_spec(full_name, spec.submodule_search_locations)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).read_text(encoding="utf-8")
    return ""
