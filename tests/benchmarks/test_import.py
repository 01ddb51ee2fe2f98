"""What importing the core costs."""

import pytest
from programs import python_output

pytestmark = pytest.mark.bench


def seconds_to(statement, before="time"):
    """Return how long an import computes in a new interpreter, after another module's."""
    clock = "time.process_time()"
    program = f"import time, {before}; t = {clock}; {statement}; print({clock} - t)"
    return float(python_output(program))


@pytest.mark.parametrize(
    "statement", ["import ttl_core", "from ttl_core import LoopComponent, use, hookimpl"]
)
def test_import_against_pluggy(assert_ratio, statement):
    """Importing the core, or what authors of components need, costs little more than pluggy."""
    assert_ratio(
        statement,
        lambda: seconds_to(statement),
        "import pluggy",
        lambda: seconds_to("import pluggy"),
        limit=3.0,
        unit="ms",
    )


EVERYDAY = ("supervised", "metrics", "precision", "progress", "optim", "checkpoint")


def test_import_of_the_everyday_set_against_torch(assert_ratio):
    """After torch, the components that people use every day are imported in no time."""
    packages = ", ".join(f"ttl_{name}" for name in EVERYDAY)
    assert_ratio(
        "import of the everyday set, after torch",
        lambda: seconds_to(f"from ttl_core import TrainTestLoop; import {packages}", "torch"),
        "import torch",
        lambda: seconds_to("import torch"),
        limit=0.25,
        repeats=5,
        unit="ms",
    )


def test_import_imports_no_large_packages():
    """`import ttl_core` imports neither torch nor importlib_metadata nor a plugin."""
    loaded = python_output("import sys, ttl_core; print(*sys.modules)").split()
    large = {"torch", "importlib_metadata", "ttl_supervised", "ttl_metrics", "ttl_progress"}
    assert set() == large & set(loaded)
