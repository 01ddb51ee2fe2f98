"""What entry points name, in the words of their docstrings, which are read without an import."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from functools import cache
from pathlib import Path

from ttl_core.discovery.scanning import InstalledComponent

_MAX_HOPS = 3  # from a package to the module that it takes a name from
_IMPORTS = re.compile(r"^from ([\w.]+) import (\([^)]*\)|.*)", re.MULTILINE)


def summary_of(installed: InstalledComponent) -> str:
    """Return the first line of the docstring of a component, or the summary of its distribution.

    Args:
        installed: an entry point of a component, or of another kind.
    """
    module, _, name = installed.entry_point.value.partition(":")
    for _ in range(_MAX_HOPS if name else 0):
        source = _source(module.strip())
        summary = _summary_in(source, "class", name) or _summary_in(source, "def", name)
        if summary:
            return summary
        taken = (found[1] for found in _IMPORTS.finditer(source) if name in _names_in(found[2]))
        module = next(taken, "")
    return installed.summary


def _summary_in(source: str, kind: str, name: str) -> str:
    """Return the first line of the docstring of a class or a function; "" if it has none."""
    begin = max(source.find(f"\n{kind} {name}{end}") for end in "(:")
    quote = source.find('"""', begin)
    header = source[begin:quote].rstrip()
    if begin < 0 or quote < 0 or header.find(":\n") >= 0 or not header.endswith(":"):
        return ""
    return source[quote + 3 :].partition("\n")[0].partition('"""')[0].strip()


def _names_in(imported: str) -> list[str]:
    return imported.strip("()").replace(",", " ").split()


@cache
def _source(module: str) -> str:
    """Return the source of a module; "" if it cannot be found without importing others."""
    top, *rest = module.split(".")
    with contextlib.suppress(Exception):  # whatever finders raise: it is only for display
        spec = importlib.util.find_spec(top)
        assert spec is not None
        if not rest:
            return Path(spec.origin or "").read_text(encoding="utf-8")
        for folder in spec.submodule_search_locations or ():
            for path in (
                Path(folder, *rest).with_suffix(".py"),
                Path(folder, *rest, "__init__.py"),
            ):
                if path.is_file():
                    return path.read_text(encoding="utf-8")
    return ""
