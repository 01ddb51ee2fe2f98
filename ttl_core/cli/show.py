"""`ttl show`: one component with its configuration, callback points and hints."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Any

from ttl_core import discovery
from ttl_core.cli.text import indent, summary
from ttl_core.errors import PluginError
from ttl_core.hooks.explain import table


def command(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ttl show`."""
    parser.add_argument("name", metavar="NAME", help="its name, or distribution/name")
    parser.set_defaults(run=_show)


def _show(given: argparse.Namespace) -> int:
    from ttl_core.cli.importer import provided_by
    from ttl_core.components.component import LoopComponent
    from ttl_core.components.hints import read_hints
    from ttl_core.hooks.hook_methods import implemented_points

    component = discovery.find(given.name)
    factory = discovery.load(component)
    if isinstance(factory, type) and not issubclass(factory, LoopComponent):
        raise PluginError(
            f"component {component}: its entry point {component.entry_point.value!r} names the "
            f"class {factory.__qualname__}, which is not a LoopComponent"
        )
    print(f"{component.name}  ({component.distribution} {component.version})")
    print(indent(summary(factory)))
    print("\nconfiguration")
    print(_configuration(factory) or "    none")
    print("\ncallback points")
    if isinstance(factory, type):
        print(indent("\n".join(implemented_points(factory)) or "none"))
    else:
        print(indent("known when it has been created: its entry point is a function"))
    points = provided_by(factory, component) if isinstance(factory, type) else ()
    if points:
        print("\ncallback points provided")
    for point, text in points:
        print(f"{indent(point)}\n{indent(text, by=8)}")
    hints = read_hints(factory, f"component {component}")
    rows = [[hint, ", ".join(names)] for hint, names in hints._asdict().items() if names]
    if rows:
        print("\nhints")
        print(indent(table(rows)))
    print("\ninstalled")
    module = sys.modules[component.entry_point.module]
    print(indent(f"{component.entry_point.value}\n{module.__file__}"))
    return 0


def _configuration(factory: Any) -> str:
    """Return, for each argument, how it is written with its default, and what the docs say."""
    import inspect

    described = dict(_described_arguments(inspect.getdoc(factory) or ""))
    lines = []
    for name, parameter in inspect.signature(factory).parameters.items():
        is_open = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        is_required = parameter.default is parameter.empty and not is_open
        text = str(parameter.replace(annotation=parameter.empty))
        lines.append(indent(f"{text}  (required)" if is_required else text))
        if name in described:
            lines.append(indent(described[name], by=8))
    return "\n".join(lines)


def _described_arguments(doc: str) -> Iterator[tuple[str, str]]:
    """Yield names and texts from the section Args of a docstring in Google's style."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    for match in re.finditer(
        r"^ {4}\**(\w+)[^:\n]*:((?:.*\n?)(?:^ {5,}.*\n?)*)",
        section[1] if section else "",
        re.MULTILINE,
    ):
        yield match[1], " ".join(match[2].split())
