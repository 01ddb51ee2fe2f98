"""The documentation, against the code: nothing is missing in it, and no link is broken.

That its Python examples run is tested where they are; that the site is built without a warning is
part of `make check`.
"""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from generated import GENERATORS, command_helps, expand
from recorded_run import record

import ttl_core
import ttl_core.testing
from ttl_core import TTLError, discovery, errors
from ttl_core.hookspecs import POINTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("ttl_plugins/*/README.md")],
    key=lambda path: (DOCS in path.parents, path),
)
HEADING = re.compile(r"^### (\w+)$", re.MULTILINE)
AUTODOC = re.compile(r"^\.\. auto\w+:: ([\w.]+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def page(name):
    """Return a page of the site with what is generated in it."""
    return expand(name, (DOCS / f"{name}.md").read_text())


def component_names():
    """Return the names of the components of this repository."""
    files = ROOT.glob("ttl_plugins/*/pyproject.toml")
    projects = [tomllib.loads(file.read_text())["project"] for file in files]
    return sorted(name for each in projects for name in each["entry-points"]["ttl.components"])


COMPONENTS = component_names()


# -- what is documented ---------------------------------------------------------------------


def test_every_callback_point_has_a_section():
    """The page of callback points has a section for each, in firing order."""
    assert list(POINTS) == HEADING.findall(page("reference/callback-points"))


def test_every_public_name_is_on_the_page_of_the_api():
    """The page has a directive for each name of ttl_core and of ttl_core.testing."""
    documented = set(AUTODOC.findall(page("reference/api")))
    names = {f"ttl_core.{name}" for name in ttl_core.__all__}
    names |= {f"ttl_core.testing.{name}" for name in ttl_core.testing.__all__}
    assert set() == names - documented


@pytest.mark.parametrize(
    "name", sorted({*ttl_core.__all__} - {*errors.__all__, "hookimpl", "hookspec"})
)
def test_every_argument_of_a_public_name_is_documented(name):
    """Docstrings explain all arguments of functions, classes and their methods, but of hooks."""
    public = getattr(ttl_core, name)
    methods = inspect.getmembers(public, inspect.isfunction) if isinstance(public, type) else []
    own = [method for name, method in methods if name[0] != "_" and name not in POINTS]
    assert [] == [
        argument for documented in [public, *own] for argument in undocumented(documented)
    ]


def undocumented(function):
    """Return the arguments of a function or class that its docstring does not explain."""
    if inspect.getmodule(function).__name__.startswith("ttl_core"):
        names = set(inspect.signature(function).parameters) - {"self", "loop", "args", "kwargs"}
        text = inspect.getdoc(function)
        return [name for name in names if not re.search(rf"(?m)^ +\**{name}\b.*:", text)]
    return []


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_has_a_page_with_all_its_arguments(name):
    """The page of a component explains each argument, as its docstring does."""
    factory = discovery.load(discovery.find(name))
    arguments = inspect.signature(factory).parameters.values()
    given = {a.name for a in arguments if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL)}
    text = (DOCS / "components" / f"{name}.md").read_text()
    assert set() == {a for a in given if f"`{a}`" not in text}
    assert set() == {a for a in given if not re.search(rf"\b{a}\b", inspect.getdoc(factory))}


def test_every_component_is_in_both_lists_of_the_gallery():
    """That of the repository, and the one that is generated from what is installed."""
    gallery = DOCS / "components" / "index.md"
    listed = re.findall(r"\[`([\w-]+)`\]\(", gallery.read_text())
    generated = re.findall(r"^\| \[`([\w-]+)`\]", page("components/index"), re.MULTILINE)
    assert COMPONENTS == sorted(listed)
    assert set() == set(COMPONENTS) - set(generated)


def test_every_error_is_in_the_table_of_errors():
    """With the built-in error that it is, too."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", page("reference/errors"), re.MULTILINE)
    types = {name: getattr(errors, name) for name in errors.__all__}
    bases = {
        name: ", ".join(b.__name__ for b in error.__bases__ if b.__module__ == "builtins")
        for name, error in types.items()
        if error is not TTLError
    }
    assert bases == dict(rows)


def test_every_command_and_option_is_documented():
    """The page of the command has each subcommand in its table, and each option in its help."""
    text, helps = page("reference/command"), command_helps()
    options = set(re.findall(r"--\w[\w-]*", " ".join(helps.values())))
    assert helps
    assert set() == {name for name in helps if f"`ttl {name}" not in text}
    assert set() == {option for option in options if option not in text}


# -- what is recorded -----------------------------------------------------------------------


def test_the_order_in_the_readme_is_that_of_a_run():
    """The points of training are listed in the order in which a recorded run first calls them."""
    diagram = (ROOT / "README.md").read_text().partition("\ntrain: ")[2].partition("\ntest: ")[0]
    training, _, end = diagram.partition("without gradients and without")
    listed = re.findall(r"on_\w+", training) + re.findall(r"on_train_end", end)
    lines = record().lines
    run = [line.split()[0] for line in lines[: lines.index("loop.test(...)")]]
    fired = [point for point in run if point.startswith("on_") and point != "on_log"]
    assert list(dict.fromkeys(listed)) == list(dict.fromkeys(fired))


# -- examples and links ---------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_example_is_left_out_without_a_reason(path):
    """Each Python block runs as an example, or says why it does not."""
    text = path.read_text()
    assert {"python"} >= set(re.findall(r"(?mi)^\s*(?:```|~~~)(py\S*)", text))
    skips = re.findall(r"<!-+ skip: (.*?) -+>", text)
    assert set() == {skip for skip in skips if not re.fullmatch(r'next ".{10,}"', skip)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path):
    """Each relative link leads to a file, and to a heading of it."""
    text = FENCE.sub("", path.read_text())
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(path):
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_what_pages_want_generated_can_be():
    """Each comment in a page names a generator, and each generator is used."""
    wanted = {n for p in PAGES for n in re.findall(r"<!-- generated: ([\w-]+) -->", p.read_text())}
    assert GENERATORS.keys() == wanted
