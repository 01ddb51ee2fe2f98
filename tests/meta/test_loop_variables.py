"""The documentation of loop variables, against their declaration."""

import re
from pathlib import Path

import torch

from ttl_core import TrainTestLoop
from ttl_core.variables.declarations import VARIABLES
from ttl_core.variables.loop_variables import LoopVariables

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "loop-variables.md"


def test_the_page_lists_every_variable_as_it_is_declared():
    """The table of docs/reference/loop-variables.md is VARIABLES, row by row."""
    expected = [f"| `{v.name}` | {v.type} | {v.meaning} | {v.set_by} |" for v in VARIABLES]
    assert expected == re.findall(r"^\| `\w+` \|.*$", PAGE.read_text(), re.MULTILINE)


def test_every_attribute_of_a_loop_is_a_documented_variable():
    """A loop has no public attribute but its methods and the variables of the table."""
    loop = TrainTestLoop(torch.nn.Identity(), [], [0])
    loop.train(1)
    properties = {name for name, v in vars(LoopVariables).items() if isinstance(v, property)}
    declared = {*LoopVariables.__annotations__, *properties, *vars(loop)}
    public = {name for name in declared if not name.startswith("_")}
    assert set() == public - {variable.name for variable in VARIABLES}
