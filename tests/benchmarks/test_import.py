"""What importing the core costs."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.bench


def run(code):
    """Run a program in a new interpreter and return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def seconds_to(statement):
    """Return how long an import takes in a new interpreter that has started."""
    return float(
        run(f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)")
    )


@pytest.mark.parametrize(
    "statement", ["import ttl_core", "from ttl_core import LoopComponent, use, hookimpl"]
)
def test_import_against_pluggy(assert_ratio, statement):
    """The core, and what an author of components needs of it, cost little beside pluggy."""
    assert_ratio(
        statement,
        lambda: seconds_to(statement),
        "import pluggy",
        lambda: seconds_to("import pluggy"),
        limit=3.0,
        unit="ms",
    )


def test_import_leaves_the_heavy_ones_alone():
    """`import ttl_core` imports neither torch nor importlib_metadata nor a plugin."""
    loaded = run("import sys, ttl_core; print(*sys.modules)").split()
    heavy = {"torch", "importlib_metadata", "ttl_supervised", "ttl_metrics", "ttl_progress"}
    assert set() == heavy & set(loaded)
