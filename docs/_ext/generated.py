"""What is generated on the site, as a Sphinx extension.

A page says what by a comment, in whose place the site has what the function of that name returns:

    <!-- generated: gallery --> shown on GitHub only <!-- end -->

The last two parts may be missing. Besides, pages called index get the navigation of what they link
to, and pages of components what their docstrings say.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from recorded_run import record

import ttl_core.testing
from ttl_core import discovery
from ttl_core.cli.importer import provided_by
from ttl_core.cli.main import main
from ttl_core.cli.text import summary
from ttl_core.components.hints import read_hints
from ttl_core.discovery import InstalledComponent
from ttl_core.hooks.hook_methods import implemented_points
from ttl_core.hookspecs import POINTS, since
from ttl_core.variables.declarations import VARIABLES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
_PROVIDED = "points-that-components-provide"  # a heading
_COMMENT = re.compile(r"<!-- generated: ([\w-]+) -->(?:(?:(?!<!--).)*<!-- end -->)?", re.DOTALL)


def setup(app: Sphinx) -> None:
    """Register what this extension does."""
    app.connect("source-read", lambda _, page, source: source.append(expand(page, source.pop())))


def expand(page: str, text: str) -> str:
    """Return the source of a page with what is generated in it.

    Args:
        page: its path in `docs`, without suffix.
        text: its source.
    """
    folder, _, name = page.rpartition("/")
    text = _COMMENT.sub(lambda match: GENERATORS[match[1]](), text)
    if name == "index":
        text += navigation(text)
    elif folder == "components":
        text += component_reference(name)
    return text


def navigation(text: str) -> str:
    """Return the navigation of an index: for each section, the pages that it links to, in order."""
    lines = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption = section.partition("\n")[0]
        pages = dict.fromkeys(re.findall(r"\]\(([\w/-]+)\.md\)", section))
        if pages:
            lines += ["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]
    return "\n".join([*lines, ""])


# -- callback points ------------------------------------------------------------------------


def firing_order() -> str:
    """Return what fires in a run, recorded now."""
    return "\n".join(["```text", *record().lines, "```"])


def callback_points() -> str:
    """Return a section for each callback point of the core."""
    implementing = defaultdict(list)
    for component, factory in _installed():
        for point in _points_of(factory):
            implementing[point].append(_link(component.name))
    sections = []
    for point in POINTS:
        components_set = [v.name for v in VARIABLES if f"a component, in {point}" in v.set_by]
        facts = {
            "The loop has set since the point before": _code(record().changed[point]),
            "Components set": _code(components_set),
            "Implemented by": ", ".join(implementing[point]),
            "Since version": since(point),
        }
        method = _autodoc("method", f"ttl_core.LoopComponent.{point}")
        sections += [f"### {point}\n", method, _list(facts)]
    return "\n".join(sections)


def provided_points() -> str:
    """Return a list of the callback points that installed components provide."""
    return "\n".join(
        f"- `{signature}` of {_link(component.name)}: {text}"
        for component, factory in _installed()
        if isinstance(factory, type)
        for signature, text in provided_by(factory, component)
    )


# -- components -----------------------------------------------------------------------------


def gallery() -> str:
    """Return a table of the installed components of each distribution."""
    rows = defaultdict(list)
    for component, factory in _installed():
        cells = _link(component.name), summary(factory), _code(_points_of(factory))
        rows[component.distribution].append(f"| {' | '.join(cells)} |")
    head = "| component | what it is | callback points |\n|---|---|---|\n"
    return "\n".join(
        f"\n## {distribution}\n\n{head}" + "\n".join(lines)
        for distribution, lines in sorted(rows.items())
    )


def component_reference(name: str) -> str:
    """Return what the docstring of a component says, and what it declares.

    Args:
        name: the name of its entry point, and of its page.
    """
    component = discovery.find(name)
    factory = discovery.load(component)
    page = "../reference/callback-points.md"
    links = (f"[`{p}`]({page}#{p if p in POINTS else _PROVIDED})" for p in _points_of(factory))
    facts = {
        "Distribution": f"`{component.distribution}` {component.version}",
        "Callback points": ", ".join(links),
    }
    for hint, names in read_hints(factory, name)._asdict().items():
        facts[f"Declares {hint}"] = ", ".join(map(_link, names))
    path = component.entry_point.value.replace(":", ".")
    return f"\n\n## Reference\n\n{_list(facts)}\n{_autodoc(_kind(factory), path)}"


def _installed() -> Iterator[tuple[InstalledComponent, Any]]:
    """Yield the installed components, by name, and the object that each entry point names."""
    found = discovery.installed_components()
    for name in sorted(found):
        for component in found[name]:
            yield component, discovery.load(component)


def _points_of(factory: Any) -> list[str]:
    return implemented_points(factory) if isinstance(factory, type) else []


def _link(name: str) -> str:
    """Return a component's name, as a link where it has a page."""
    has_page = (DOCS / "components" / f"{name}.md").exists()
    return f"[`{name}`](/components/{name}.md)" if has_page else f"`{name}`"


# -- names, errors, commands ----------------------------------------------------------------


def public_names() -> str:
    """Return the documentation of all public names of `ttl_core`."""
    return _documented("ttl_core", ttl_core.__all__)


def testing_names() -> str:
    """Return the documentation of all public names of `ttl_core.testing`."""
    return _documented("ttl_core.testing", ttl_core.testing.__all__)


def commands() -> str:
    """Return the help of each subcommand of `ttl`."""
    return "\n".join(f"### ttl {n}\n\n```text\n{text}```\n" for n, text in command_helps().items())


@functools.cache
def command_helps() -> dict[str, str]:
    """Return the help of each subcommand of `ttl`, by name."""
    names = re.findall(r"^  ([a-z][\w/-]*)  ", _help(), re.MULTILINE)
    return {name: _help(name) for name in names}


def _help(*command: str) -> str:
    """Return what `ttl` prints for a subcommand and --help."""
    output = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="80"),
        contextlib.redirect_stdout(output),
        contextlib.suppress(SystemExit),
    ):
        main([*command, "--help"])
    return output.getvalue()


def _documented(module: str, names: Iterable[str]) -> str:
    """Return a section for each name of a module, and one for its errors."""
    sections, own_errors = [], []
    for name in names:
        kind = _kind(getattr(sys.modules[module], name))
        options = _MEMBERS if kind == "class" else ()
        text = _autodoc(kind, f"{module}.{name}", *options)
        if kind == "exception":
            own_errors.append(text)
        else:
            sections.append(f"### {name}\n\n{text}")
    if own_errors:
        sections += ["### Errors and warnings\n", *own_errors]
    return "\n".join(sections)


# callback points have a page of their own
_MEMBERS = ("members:", "inherited-members: CallbackPoints, LoopComponent")


def _kind(documented: object) -> str:
    if isinstance(documented, type):
        return "exception" if issubclass(documented, Exception) else "class"
    return "function" if inspect.isfunction(documented) else "data"


# -- Markdown -------------------------------------------------------------------------------


def _autodoc(kind: str, path: str, *options: str) -> str:
    """Return a directive that documents an object from its docstring."""
    lines = [f".. auto{kind}:: {path}", *(f"   :{option}" for option in options)]
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def _list(facts: Mapping[str, str]) -> str:
    """Return a list of those facts that are not empty."""
    return "\n".join([*(f"- {what}: {fact}" for what, fact in facts.items() if fact), ""])


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


GENERATORS: dict[str, Callable[[], str]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        callback_points,
        commands,
        firing_order,
        gallery,
        provided_points,
        public_names,
        testing_names,
    )
}
"""What a page can have generated, by the name in its comment."""
