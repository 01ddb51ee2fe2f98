"""`ttl hooks`: the callback points of the core, and those that installed components provide."""

from __future__ import annotations

import argparse
import sys

from ttl_core.cli.commands import add_time_limit
from ttl_core.cli.plugins import all_components, is_importable
from ttl_core.cli.text import indent, signature, summary


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl hooks`."""
    parser.add_argument("--core", action="store_true", help="those of the core only")
    add_time_limit(parser, "importing one component")
    parser.set_defaults(run=_list)


def _list(given: argparse.Namespace) -> int:
    from ttl_core.hookspecs import POINTS, CallbackPoints, since

    for point in POINTS:
        spec = getattr(CallbackPoints, point)
        print(f"{signature(spec)}  since {since(point)}\n{indent(summary(spec))}")
    if not given.core:
        _list_provided(given.time_limit)
    return 0


def _list_provided(seconds: float) -> None:
    from ttl_core.cli.importer import import_all

    sys.stdout.flush()  # importing takes seconds
    components = [component for component in all_components() if is_importable(component)]
    found = import_all(components, seconds)
    for component in components:
        for point, text in found[component].points:
            print(f"{point}  by {component}\n{indent(text)}")
        if found[component].failure:
            print(f"ttl: {component} is broken, see ttl plugins --check", file=sys.stderr)
