"""What finding installed components costs."""

import importlib
import os
import subprocess
import sys

import importlib_metadata
import pytest

from ttl_core import discovery

pytestmark = pytest.mark.bench

DESCRIPTION = (
    "Whatever it does, it takes some lines to tell, as the pages of most packages do.\n" * 60
)


def install(folder, n_distributions, n_ours):
    """Write what an installation of distributions leaves for who reads metadata.

    Of the others a third has entry points, as in an environment with torch and what goes with it.
    """
    for number in range(n_distributions):
        is_ours = number < n_ours
        info = folder / f"{'acme' if is_ours else 'other'}_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {info.name.split('-')[0]}\nVersion: 1.0\n"
            "Summary: Do something in a loop.\nRequires-Dist: ttl-core>=0.1\n"
            f"Requires-Dist: packaging>=22\n\n{DESCRIPTION}"
        )
        declared = f"[console_scripts]\nrun-{number} = module_{number}:main\n"
        if is_ours:
            declared += f"\n[ttl.components]\ncomponent-{number} = module_{number}:Component\n"
        if is_ours or number % 3 == 0:
            (info / "entry_points.txt").write_text(declared)


def from_scratch(look):
    """Return a function that looks with nothing known of what the folders hold."""

    def run():
        importlib.invalidate_caches()
        importlib_metadata.MetadataPathFinder.invalidate_caches()
        return look()

    return run


def test_the_scan_against_entry_points(assert_ratio, tmp_path, monkeypatch):
    """Finding 15 distributions of ours among 500 costs little more than entry_points() alone."""
    install(tmp_path, 500, 15)
    discovery.scan()  # imports what it needs while that is on the path
    monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert len(discovery.scan(again=True).components) == 15
    assert len(importlib_metadata.entry_points(group=discovery.GROUP)) == 15
    assert_ratio(
        "the scan, 500 distributions, 15 of them ours",
        from_scratch(lambda: discovery.scan(again=True)),
        "importlib_metadata.entry_points(group=...)",
        from_scratch(lambda: importlib_metadata.entry_points(group=discovery.GROUP)),
        limit=1.3,
        unit="ms",
    )


def test_the_listing_against_importing_importlib_metadata(assert_ratio, tmp_path):
    """`ttl plugins` with 20 distributions more takes at most three times a bare import."""
    install(tmp_path, 20, 20)
    # as in a plain shell: where no bytecode is kept, every start compiles what was edited last
    variables = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
        )
        return done.stdout

    plugins = "import sys; from ttl_core.cli import main; sys.exit(main(['plugins']))"
    assert run(plugins).count("acme") == 20
    assert_ratio(
        "`ttl plugins`, 20 distributions",
        lambda: run(plugins) and None,
        "python -c 'import importlib_metadata'",
        lambda: run("import importlib_metadata") and None,
        limit=3.0,
        repeats=31,
        unit="ms",
    )
