"""Summaries of installed components, read from source."""

import sys

import pytest

from ttl_core.discovery import installed_components
from ttl_core.discovery.summaries import summary_of


@pytest.mark.parametrize("name", ["ema", "progress", "supervised", "run-folder", "csv"])
def test_the_summary_is_the_first_line_of_the_docstring(name):
    """It is found where a package takes the class from one of its modules."""
    (installed,) = installed_components()[name]
    documented = installed.entry_point.load().__doc__.splitlines()[0]
    assert documented == summary_of(installed)


def test_what_cannot_be_found_has_the_summary_of_its_distribution():
    """As a name that is made in another way, or a module that is not there."""
    (installed,) = installed_components()["ema"]
    for value in ("ttl_optim:missing", "no_such_module:Ema", "ttl_optim.no_such:Ema", "ttl_optim"):
        entry_point = type(installed.entry_point)("ema", value, "ttl.components")
        assert installed.summary == summary_of(installed._replace(entry_point=entry_point))


def test_no_module_is_imported():
    """Reading is all that is done."""
    (installed,) = installed_components()["hf-callback"]
    before = set(sys.modules)
    assert summary_of(installed).startswith("A callback of")
    assert not {name for name in set(sys.modules) - before if name.startswith("ttl_adapters")}
