"""What importing the core costs."""

import pytest
from programs import python_output

pytestmark = pytest.mark.bench


def seconds_to(statement):
    """Return how long an import takes in a new interpreter, without the start of that."""
    program = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
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


def test_import_imports_no_large_packages():
    """`import ttl_core` imports neither torch nor importlib_metadata nor a plugin."""
    loaded = python_output("import sys, ttl_core; print(*sys.modules)").split()
    large = {"torch", "importlib_metadata", "ttl_supervised", "ttl_metrics", "ttl_progress"}
    assert set() == large & set(loaded)
