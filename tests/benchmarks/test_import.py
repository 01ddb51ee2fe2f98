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


def seconds_to_import(name):
    """Return how long an import takes in a new interpreter that has started."""
    return float(
        run(f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)")
    )


def test_import_against_pluggy(assert_ratio):
    """`import ttl_core` takes at most three times what `import pluggy` takes."""
    assert_ratio(
        "import ttl_core, in a new interpreter",
        lambda: seconds_to_import("ttl_core"),
        "import pluggy, in a new interpreter",
        lambda: seconds_to_import("pluggy"),
        limit=3.0,
        unit="ms",
    )


def test_import_leaves_the_heavy_ones_alone():
    """`import ttl_core` imports neither torch nor importlib_metadata nor a plugin."""
    loaded = run("import sys, ttl_core; print(*sys.modules)").split()
    heavy = {"torch", "importlib_metadata", "ttl_supervised", "ttl_metrics", "ttl_progress"}
    assert set() == heavy & set(loaded)
