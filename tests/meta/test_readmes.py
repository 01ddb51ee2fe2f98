"""Each plugin's README, against what its components implement and use.

Every README has one table with a row for each component. The names in it are in backticks, hooks
in firing order and loop variables in alphabetical order; other words in a cell are explanations.
"""

import ast
import inspect
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from ttl_core import LoopComponent, TrainTestLoop
from ttl_core.hookspecs import POINTS
from ttl_core.variables.declarations import VARIABLES

READMES = sorted(Path(__file__).parents[2].glob("ttl_plugins/*/README.md"))
COLUMNS = ["hooks implemented", "loop variables read", "loop variables written"]
HEADING = "| " + " | ".join(["component", *COLUMNS, "logged"]) + " |"
TABLE = re.compile(rf"^({re.escape(HEADING)}.*)\n\|[-|]+\n((?:\|.*\n?)+)", re.MULTILINE)


def rows(readme):
    """Return the table of a README: for each component, its cells by column."""
    heading, body = TABLE.search(readme.read_text()).groups()
    columns, *found = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in [heading, *body.splitlines()]
    ]
    return {row[0].strip("`"): dict(zip(columns, row, strict=True)) for row in found}


def entry_points(readme):
    """Return the entry points of a README's distribution: the component classes by name."""
    project = tomllib.loads(readme.with_name("pyproject.toml").read_text())["project"]
    return project["entry-points"]["ttl.components"]


def implemented_points(cls):
    """Return the callback points that a component class implements, in firing order."""
    return [p for p in POINTS if getattr(cls, p) is not getattr(LoopComponent, p)]


def loop_variables(cls):
    """Return the loop variables that the code of a component class reads, and those that it sets.

    They are the attributes of each variable `loop` in its module, and in the modules of its
    package that this one imports, without the methods of a loop.
    """
    read, written = set(), set()
    for node in (node for tree in syntax_trees(cls.__module__) for node in ast.walk(tree)):
        match node:
            case ast.Attribute(value=ast.Name(id="loop"), attr=name, ctx=ast.Load()):
                read.add(name)
            case ast.Attribute(value=ast.Name(id="loop"), attr=name):
                written.add(name)
            case ast.AugAssign(target=ast.Attribute(value=ast.Name(id="loop"), attr=name)):
                read.add(name)  # its target, an ast.Attribute too, is written
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id="loop"), name, *_]):
                read.add(name.value)
            case ast.Call(func=ast.Name(id="optimizer_parameters")):
                read.add("optimizers")
    variables = {variable.name for variable in VARIABLES}
    other = {name for name in read - variables if hasattr(TrainTestLoop, name)}
    return sorted(read - other), sorted(written)


def syntax_trees(module):
    """Yield the syntax trees of a module, and of the modules of its package that it imports."""
    package = module.partition(".")[0]
    names = [module]
    for name in names:  # which grows
        tree = ast.parse(inspect.getsource(import_module(name)))
        yield tree
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == package:
                imported = [f"{package}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{package}."):
                imported = [node.module]
            else:
                imported = []
            names += [each for each in imported if each not in names and find_spec(each)]


@pytest.mark.parametrize(
    ("readme", "name", "value"),
    [
        pytest.param(readme, name, value, id=name)
        for readme in READMES
        for name, value in entry_points(readme).items()
    ],
)
def test_the_row_of_a_component_is_what_its_code_does(readme, name, value):
    """It lists the hooks that the class implements, and the loop variables of its code."""
    module, _, attribute = value.partition(":")
    cls = getattr(import_module(module), attribute)
    expected = [implemented_points(cls), *loop_variables(cls)]
    row = rows(readme)[name]
    assert expected == [re.findall(r"`(\w+)`", row[column]) for column in COLUMNS]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_a_readme_has_a_row_for_each_component(readme):
    """The rows are those of the distribution's entry points, and no others."""
    assert entry_points(readme).keys() == rows(readme).keys()


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.parent.name)
def test_a_readme_shows_how_to_install_and_use_its_distribution(readme):
    """It begins with the name of the distribution, and has the command and an example."""
    name, text = readme.parent.name, readme.read_text()
    assert text.startswith(f"# {name}\n")
    assert f"\n    pip install {name}\n" in text
    assert "\n```python\n" in text
