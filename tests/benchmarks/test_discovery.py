"""What finding installed components costs."""

import importlib
import os
import sys

import importlib_metadata
import pytest
from programs import python_output

from ttl_core import discovery

pytestmark = pytest.mark.bench

DESCRIPTION = "A description takes some lines, as it does in the metadata of most packages.\n" * 60


def install(folder, n_distributions, n_with_components):
    """Write the metadata of installed distributions, some of which have components.

    A third of the others has entry points, as in an environment with torch.
    """
    for number in range(n_distributions):
        has_components = number < n_with_components
        info = folder / f"{'acme' if has_components else 'other'}_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {info.name.split('-')[0]}\nVersion: 1.0\n"
            "Summary: Do something in a loop.\nRequires-Dist: ttl-core>=0.1\n"
            f"Requires-Dist: packaging>=22\n\n{DESCRIPTION}"
        )
        declared = f"[console_scripts]\nrun-{number} = module_{number}:main\n"
        if has_components:
            declared += f"\n[ttl.components]\ncomponent-{number} = module_{number}:Component\n"
        if has_components or number % 3 == 0:
            (info / "entry_points.txt").write_text(declared)


def without_caches(scan):
    """Return a function that scans folders with empty caches."""

    def run():
        importlib.invalidate_caches()
        importlib_metadata.MetadataPathFinder.invalidate_caches()
        return scan()

    return run


def test_the_scan_against_entry_points(assert_ratio, tmp_path, monkeypatch):
    """Finding 15 distributions with components among 500 costs little more than entry_points()."""
    install(tmp_path, 500, 15)
    discovery.scan()  # imports what it needs while that is on the path
    monkeypatch.setattr("ttl_core.discovery.scanning._newest_scan", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert len(discovery.scan(again=True).components) == 15
    assert len(importlib_metadata.entry_points(group=discovery.GROUP)) == 15
    assert_ratio(
        "the scan, 500 distributions, 15 with components",
        without_caches(lambda: discovery.scan(again=True)),
        "importlib_metadata.entry_points(group=...)",
        without_caches(lambda: importlib_metadata.entry_points(group=discovery.GROUP)),
        limit=1.3,
        unit="ms",
    )


def test_the_listing_against_importing_importlib_metadata(assert_ratio, tmp_path):
    """`ttl plugins` with 20 distributions, and all of this repository, costs a few bare imports.

    A tenth of it is reading what each component says of itself.
    """
    install(tmp_path, 20, 20)
    # as in a plain shell; without bytecode, every start would compile what was edited last
    variables = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}

    def run(code):
        return python_output(code, env=variables)

    plugins = "import sys; from ttl_core.cli import main; sys.exit(main(['plugins']))"
    assert run(plugins).count("acme") == 20
    assert_ratio(
        "`ttl plugins`, 20 distributions",
        lambda: run(plugins) and None,
        "python -c 'import importlib_metadata'",
        lambda: run("import importlib_metadata") and None,
        limit=4.0,
        repeats=15,
        unit="ms",
    )
